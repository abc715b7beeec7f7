"""Checkpoints of the authors' implementation: every setting against an independent forward pass.

`Original` computes what the authors' model computes, from a state dict under their names, with
functions alone.
"""

import argparse
import itertools
import math
import random
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from difformer_plugin.errors import UserError
from difformer_plugin.families.embeddings.model import Difformer
from difformer_plugin.interop.conversion import (
    UNSUPPORTED,
    convert_checkpoint,
    convert_options,
    convert_weights,
    load_original,
)

REFERENCE = Path(__file__).resolve().parents[2] / ".." / "shared" / "reference"
PAD = 1
LIMIT = 40
DIMS = {"C": 12, "D": 6, "FFN": 10}


class Original:
    """Encoder, length predictor and denoiser, from their options and their state dict."""

    def __init__(self, args, state):
        self.args, self.state = args, state

    def linear(self, name, x):
        if f"{name}.weight" not in self.state:
            return x  # a projection between equal dimensions
        return F.linear(x, self.state[f"{name}.weight"], self.state.get(f"{name}.bias"))

    def norm(self, name, x):
        weight, bias = self.state.get(f"{name}.weight"), self.state.get(f"{name}.bias")
        return F.layer_norm(x, x.shape[-1:], weight, bias)

    def two_layers(self, name, x):
        return self.linear(f"{name}.2", self.activation(self.linear(f"{name}.0", x)))

    def activation(self, x):
        return getattr(F, self.args.activation_fn)(x)

    def attention(self, name, x, memory, padding, heads):
        """torch's own multi-head attention, which wants the sequence first."""
        weights = [self.state[f"{name}.{part}_proj.weight"] for part in "qkv"]
        biases = torch.cat([self.state[f"{name}.{part}_proj.bias"] for part in "qkv"])
        query, key = x.transpose(0, 1), memory.transpose(0, 1)
        out, _ = F.multi_head_attention_forward(
            query,
            key,
            key,
            embed_dim_to_check=x.shape[-1],
            num_heads=heads,
            in_proj_weight=None,
            in_proj_bias=biases,
            bias_k=None,
            bias_v=None,
            add_zero_attn=False,
            dropout_p=0.0,
            out_proj_weight=self.state[f"{name}.out_proj.weight"],
            out_proj_bias=self.state[f"{name}.out_proj.bias"],
            training=False,
            key_padding_mask=padding,
            use_separate_proj_weight=True,
            q_proj_weight=weights[0],
            k_proj_weight=weights[1],
            v_proj_weight=weights[2],
        )
        return out.transpose(0, 1)

    def layers(self, side, x, padding, memory=None, memory_padding=None):
        """Vaswani et al. (2017), with the norm after each residual or before each block."""
        heads = getattr(self.args, f"{side}_attention_heads")
        before = getattr(self.args, f"{side}_normalize_before")
        for i in range(getattr(self.args, f"{side}_layers")):
            layer = f"{side}.layers.{i}"
            blocks = [
                (
                    "self_attn_layer_norm",
                    lambda h, n=layer: self.attention(f"{n}.self_attn", h, h, padding, heads),
                ),
                (
                    "encoder_attn_layer_norm",
                    lambda h, n=layer: self.attention(
                        f"{n}.encoder_attn", h, memory, memory_padding, heads
                    ),
                ),
                (
                    "final_layer_norm",
                    lambda h, n=layer: self.linear(
                        f"{n}.fc2", self.activation(self.linear(f"{n}.fc1", h))
                    ),
                ),
            ]
            for name, block in blocks:
                if name == "encoder_attn_layer_norm" and memory is None:
                    continue
                if before:
                    x = x + block(self.norm(f"{layer}.{name}", x))
                else:
                    x = self.norm(f"{layer}.{name}", x + block(x))
        return self.norm(f"{side}.layer_norm", x) if before else x

    def positions(self, side, padding):
        """Real position i is number i + PAD + 1 of a learned or sinusoidal table."""
        dim, rows = self.args.model_dim, []
        for row in padding.tolist():
            numbers, seen = [], PAD
            for padded in row:
                seen += not padded
                numbers.append(PAD if padded else seen)
            rows.append(numbers)
        if getattr(self.args, f"{side}_learned_pos"):
            return self.state[f"{side}.embed_positions.weight"][torch.tensor(rows)]
        half = dim // 2
        table = torch.zeros(*padding.shape, dim)
        for b, i in itertools.product(*map(range, padding.shape)):
            for j in range(half if rows[b][i] != PAD else 0):
                angle = rows[b][i] * 10000 ** (-j / (half - 1))
                table[b, i, j], table[b, i, half + j] = math.sin(angle), math.cos(angle)
        return table

    def embedding(self, side, tokens):
        scale = 1 if self.args.no_scale_embedding else math.sqrt(self.args.latent_dim)
        return scale * self.state[f"{side}.embed_tokens.weight"][tokens]

    def encode(self, tokens):
        padding = tokens == PAD
        x = self.linear("encoder.project_in_dim", self.embedding("encoder", tokens))
        x = x + self.positions("encoder", padding)
        if self.args.layernorm_embedding:
            x = self.norm("encoder.layernorm_embedding", x)
        return self.layers("encoder", x, padding)

    def length_logits(self, states, padding):
        mean = torch.stack([s[~p].mean(0) for s, p in zip(states, padding)])
        return mean @ self.state["decoder.embed_length.weight"].T

    def z_0(self, tokens):
        embedded = self.embedding("decoder", tokens)
        if self.args.embed_norm and self.args.embed_norm_before_proj:
            return self.norm("decoder.embed_norm", embedded)
        return embedded

    def denoise(self, z_t, z_0_hat, t, padding, states, source_padding):
        args = self.args
        if args.self_cond and args.self_cond_before_proj:
            joined = self.two_layers("decoder.self_cond_proj", torch.cat([z_t, z_0_hat], -1))
            hidden = self.linear("decoder.project_in_dim", joined)
        elif args.self_cond:
            projected = [self.linear("decoder.project_in_dim", z) for z in (z_t, z_0_hat)]
            hidden = self.two_layers("decoder.self_cond_proj", torch.cat(projected, -1))
        else:
            hidden = self.linear("decoder.project_in_dim", z_t)
        scaled = t * (1000 / args.diffusion_steps if args.rescale_timesteps else 1)
        half = args.model_dim // 2
        angles = scaled[:, None] * torch.tensor([10000 ** (-i / half) for i in range(half)])
        time = self.two_layers("decoder.embed_time", torch.cat([angles.cos(), angles.sin()], -1))
        hidden = hidden + time[:, None] + self.positions("decoder", padding)
        if args.embed_norm and not args.embed_norm_before_proj:
            hidden = self.norm("decoder.embed_norm", hidden)
        hidden = self.layers("decoder", hidden, padding, states, source_padding)
        return self.linear("decoder.project_out_dim", hidden)

    def logits(self, z):
        return z @ self.state["decoder.output_projection.weight"].T


def original_args(**given):
    """Their options, as far as they matter here."""
    args = {
        "data": "data-bin",
        "source_lang": "de",
        "target_lang": "en",
        "model_dim": DIMS["C"],
        "latent_dim": DIMS["D"],
        "max_source_positions": LIMIT,
        "max_target_positions": LIMIT,
        "diffusion_steps": 200,
        "noise_schedule": "sqrt",
        "rescaling_factor": 4.0,
        "activation_fn": "relu",
        "share_decoder_input_output_embed": False,
        "share_all_embeddings": False,
        "label_smoothing": 0.1,
        "decoding_steps": 20,
    }
    for side in ("encoder", "decoder"):
        args |= {
            f"{side}_layers": 2,
            f"{side}_attention_heads": 3,
            f"{side}_ffn_embed_dim": DIMS["FFN"],
            f"{side}_learned_pos": False,
            f"{side}_normalize_before": False,
        }
    for name in (
        *("embed_norm", "embed_norm_affine", "embed_norm_before_proj"),
        *("self_cond", "self_cond_before_proj", "share_project_in_dim"),
        *("no_scale_embedding", "layernorm_embedding", "rescale_timesteps"),
        *("pred_length_offset", "sg_length_pred", "vp_rf"),
    ):
        args[name] = False
    return argparse.Namespace(**(args | given))


def random_state(args, task):
    """A state dict under their names, its weights random, with what they save besides weights."""
    dim, latent, ffn = args.model_dim, args.latent_dim, DIMS["FFN"]
    shapes = {
        "decoder.embed_length.weight": (256, dim),
        "decoder.embed_tokens.weight": (len(task.target_dictionary), latent),
        "encoder.embed_tokens.weight": (len(task.source_dictionary), latent),
        "decoder.output_projection.weight": (len(task.target_dictionary), latent),
    }

    def linear(name, into, out, bias=True):
        shapes[f"{name}.weight"] = (into, out)[::-1]
        if bias:
            shapes[f"{name}.bias"] = (out,)

    def norm(name, size):
        shapes[f"{name}.weight"] = shapes[f"{name}.bias"] = (size,)

    linear("decoder.embed_time.0", dim, 4 * dim)
    linear("decoder.embed_time.2", 4 * dim, dim)
    if args.self_cond:
        joined = latent if args.self_cond_before_proj else dim
        linear("decoder.self_cond_proj.0", 2 * joined, joined)
        linear("decoder.self_cond_proj.2", joined, joined)
    if args.embed_norm and args.embed_norm_affine:
        norm("decoder.embed_norm", latent if args.embed_norm_before_proj else dim)
    if args.layernorm_embedding:
        norm("encoder.layernorm_embedding", dim)
    for side in ("encoder", "decoder"):
        if latent != dim:
            linear(f"{side}.project_in_dim", latent, dim, bias=False)
        if getattr(args, f"{side}_learned_pos"):
            shapes[f"{side}.embed_positions.weight"] = (LIMIT + PAD + 1, dim)
        if getattr(args, f"{side}_normalize_before"):
            norm(f"{side}.layer_norm", dim)
        for i in range(2):
            layer = f"{side}.layers.{i}"
            for attention in ["self_attn"] + ["encoder_attn"] * (side == "decoder"):
                norm(f"{layer}.{attention}_layer_norm", dim)
                for part in ("q", "k", "v", "out"):
                    linear(f"{layer}.{attention}.{part}_proj", dim, dim)
            linear(f"{layer}.fc1", dim, ffn)
            linear(f"{layer}.fc2", ffn, dim)
            norm(f"{layer}.final_layer_norm", dim)
    if latent != dim:
        linear("decoder.project_out_dim", dim, latent, bias=False)
    state = {name: 0.5 * torch.randn(shape) for name, shape in shapes.items()}
    if args.share_project_in_dim and latent != dim:
        state["decoder.project_in_dim.weight"] = state["encoder.project_in_dim.weight"]
    if args.share_decoder_input_output_embed:
        state["decoder.output_projection.weight"] = state["decoder.embed_tokens.weight"]
    if args.share_all_embeddings:
        for name in ("encoder.embed_tokens.weight", "decoder.output_projection.weight"):
            state[name] = state["decoder.embed_tokens.weight"]
    for side in ("encoder", "decoder"):
        state[f"{side}.version"] = torch.tensor([3.0])
        if not getattr(args, f"{side}_learned_pos"):
            state[f"{side}.embed_positions._float_tensor"] = torch.zeros(1)
    return state


NORMS = {
    "no norm": {},
    "norm": {"embed_norm": True},
    "affine": {"embed_norm": True, "embed_norm_affine": True},
    "norm z_0": {"embed_norm": True, "embed_norm_before_proj": True},
    "affine z_0": {"embed_norm": True, "embed_norm_affine": True, "embed_norm_before_proj": True},
}
CONDITIONS = {
    "alone": {},
    "after": {"self_cond": True},
    "before": {"self_cond": True, "self_cond_before_proj": True},
}
OTHERS = {
    "activation_fn": ["relu", "gelu"],
    "encoder_learned_pos": [False, True],
    "decoder_learned_pos": [False, True],
    "encoder_normalize_before": [False, True],
    "decoder_normalize_before": [False, True],
    "share_project_in_dim": [False, True],
    "share_decoder_input_output_embed": [False, True],
    "share_all_embeddings": [False, True],
    "latent_dim": [DIMS["D"], DIMS["D"], DIMS["C"]],
    "no_scale_embedding": [False, True],
    "layernorm_embedding": [False, True],
    "rescale_timesteps": [False, True],
    "pred_length_offset": [False, True],
}


def combinations():
    """Each kind of norm with each of conditioning, three times, the rest drawn at random."""
    draw = random.Random(5)
    for i, (norm, condition) in enumerate(itertools.product(NORMS, [*CONDITIONS] * 3)):
        others = {name: draw.choice(values) for name, values in OTHERS.items()}
        yield pytest.param(
            NORMS[norm] | CONDITIONS[condition] | others, id=f"{norm}-{condition}-{i}"
        )


@torch.no_grad()
@pytest.mark.parametrize("settings", combinations())
def test_every_setting_computes_what_theirs_does(settings, task, joined_task, sentences):
    if settings["share_all_embeddings"]:
        task = joined_task
    args = original_args(**settings)
    state = random_state(args, task)
    theirs = Original(args, state)
    options = convert_options(args)
    model = Difformer.build_model(options.model, task).eval()
    model.load_state_dict(convert_weights(state, options.model), strict=True)

    source, target = sentences([4, 7, 2]), sentences([6, 3, 5], "target")
    padding, source_padding = target == PAD, source == PAD
    states = theirs.encode(source)
    memory = model.encoder(source)
    close = {"atol": 1e-5, "rtol": 1e-5}
    torch.testing.assert_close(memory.states, states, **close)
    assert torch.equal(memory.mask, ~source_padding)
    torch.testing.assert_close(
        model.length_predictor(memory), theirs.length_logits(states, source_padding), **close
    )
    lengths = torch.tensor([8, 5, 7])
    offset = 128 - torch.tensor([6, 9, 4]) if args.pred_length_offset else 0
    assert torch.equal(model.length_predictor.classes(lengths, memory), lengths + offset)

    torch.testing.assert_close(model.denoiser.embed(target), theirs.z_0(target), **close)
    z_t, previous = torch.randn(2, *target.shape, args.latent_dim)
    t = torch.tensor([0, 57, 199])
    expected = theirs.denoise(z_t, previous, t, padding, states, source_padding)
    ours = model.denoiser(z_t, t, ~padding, memory, previous)
    torch.testing.assert_close(ours, expected, **close)
    torch.testing.assert_close(
        model.denoiser.output_projection(ours), theirs.logits(expected), **close
    )


def test_every_value_of_every_setting_was_drawn():
    drawn = [case.values[0] for case in combinations()]
    for name, values in OTHERS.items():
        assert {settings[name] for settings in drawn} == set(values)


def test_options_arrive_in_their_parts():
    args = original_args(
        vp_rf=True,
        sg_length_pred=True,
        length_loss_factor=0.25,
        rounding_loss=True,
        decoding_steps=13,
        decoding_early_stopping=4,
        length_beam_size=3,
        share_all_embeddings=True,
    )
    options = convert_options(args)
    model, criterion, task = options.model, options.criterion, options.task
    assert (model.vp_rf, model.sg_length_pred, model.rescaling_factor) == (True, True, 4.0)
    assert model.share_decoder_input_output_embed  # implied
    assert (criterion.label_smoothing, criterion.length_loss_factor) == (0.1, 0.25)
    assert criterion.rounding_loss and not criterion.mse_loss_only
    assert (task.decoding_steps, task.decoding_early_stopping, task.length_beam_size) == (13, 4, 3)
    assert (task.source_lang, task.target_lang) == ("de", "en")


def test_former_names_and_missing_limits():
    args = original_args(noise_factor=7.0, max_source_positions=None, encoder_embed_path="gone.txt")
    del args.rescaling_factor
    model = convert_options(args).model
    assert model.rescaling_factor == 7.0 and model.encoder_embed_path is None
    assert (model.max_source_positions, model.max_target_positions) == (1024, LIMIT)


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_an_option_that_we_do_not_have_is_named(name):
    used = {"adaptive_softmax_cutoff": "100,200", "encoder_layers_to_keep": "0,1"}.get(name, 0.3)
    with pytest.raises(UserError, match=f"--{name.replace('_', '-')} {used}"):
        convert_options(original_args(**{name: used}))


def test_all_unsupported_options_are_named_at_once():
    with pytest.raises(UserError) as error:
        convert_options(original_args(adaptive_input=True, decoder_layerdrop=0.2))
    assert "--adaptive-input" in str(error.value) and "--decoder-layerdrop" in str(error.value)


def test_impossible_options_are_refused():
    with pytest.raises(UserError, match="--noise-schedule|schedule"):
        convert_options(original_args(noise_schedule="none such"))


def test_a_weight_without_a_place_is_named(task):
    args = original_args()
    state = random_state(args, task) | {"discriminator.weight": torch.zeros(1)}
    with pytest.raises(UserError, match="discriminator.weight"):
        convert_weights(state, convert_options(args).model)


def test_tied_rounding_may_be_left_out_of_the_state(task):
    args = original_args(share_decoder_input_output_embed=True)
    state = random_state(args, task)
    del state["decoder.output_projection.weight"]
    options = convert_options(args)
    model = Difformer.build_model(options.model, task)
    model.load_state_dict(convert_weights(state, options.model), strict=True)
    table = model.denoiser.output_projection.weight
    assert torch.equal(table, state["decoder.embed_tokens.weight"])


def test_a_checkpoint_of_another_kind(tmp_path):
    path = tmp_path / "other.pt"
    torch.save({"model": {}, "args": argparse.Namespace(arch="transformer")}, path)
    with pytest.raises(UserError, match="other.pt.*latent_dim"):
        load_original(path)


@pytest.mark.skipif(not REFERENCE.is_dir(), reason="no recorded reference beside the repository")
@pytest.mark.parametrize("name", ["difformer_a", "difformer_c"])
def test_a_converted_checkpoint_loads_into_the_model_that_it_describes(name):
    converted = convert_checkpoint(REFERENCE / name / "checkpoint.pt")
    _, state = load_original(REFERENCE / name / "checkpoint.pt")
    counts = [
        sum(t.numel() for name, t in weights.items() if name.endswith(("weight", "bias")))
        for weights in (converted["model"], state)
    ]
    assert counts[0] == counts[1]
    cfg = converted["cfg"]
    assert (cfg["model"]["_name"], cfg["task"]["_name"]) == ("difformer", "diffusion_translation")
    assert cfg["criterion"]["_name"] == "difformer_loss"
    assert converted["last_optimizer_state"] is None
