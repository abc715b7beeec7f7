"""An independent implementation of the authors' model, with functions alone.

`Original` computes the forward pass from original options and an original state dict.
"""

import argparse
import itertools
import math

import torch
from torch.nn import functional as F

PAD = 1
LIMIT = 40
DIMS = {"C": 12, "D": 6, "FFN": 10}


class Original:
    """Encoder, length predictor and denoiser, from original options and an original state dict."""

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
        """torch's multi-head attention, which takes the sequence dimension first."""
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
        """The layers of Vaswani et al. (2017), with post-norm or pre-norm."""
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
        """Real position i (from 0) has row i + PAD + 1 of a learned or sinusoidal table."""
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
    """Original options, as far as they matter here."""
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
    """An original state dict with random weights, and with the entries that are no weights."""
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
