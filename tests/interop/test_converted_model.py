"""Converted models against an independent implementation of the original, in every setting."""

import itertools
import random

import pytest
import torch
from original_model import DIMS, PAD, Original, original_args, random_state

from difformer_plugin.families.embeddings.model import Difformer
from difformer_plugin.interop.conversion import convert_options, convert_weights

NORMS = {
    "no norm": {},
    "norm": {"embed_norm": True},
    "affine": {"embed_norm": True, "embed_norm_affine": True},
    "norm z_0": {"embed_norm": True, "embed_norm_before_proj": True},
    "affine z_0": {"embed_norm": True, "embed_norm_affine": True, "embed_norm_before_proj": True},
}
SELF_CONDITIONING = {
    "none": {},
    "after projection": {"self_cond": True},
    "before projection": {"self_cond": True, "self_cond_before_proj": True},
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
    """Every norm with every kind of self-conditioning, three times; the rest is drawn at random."""
    draw = random.Random(5)
    for i, (norm, self_cond) in enumerate(itertools.product(NORMS, [*SELF_CONDITIONING] * 3)):
        others = {name: draw.choice(values) for name, values in OTHERS.items()}
        yield pytest.param(
            NORMS[norm] | SELF_CONDITIONING[self_cond] | others, id=f"{norm}-{self_cond}-{i}"
        )


@torch.no_grad()
@pytest.mark.parametrize("settings", combinations())
def test_converted_models_compute_what_the_original_does(settings, task, joined_task, sentences):
    if settings["share_all_embeddings"]:
        task = joined_task
    args = original_args(**settings)
    state = random_state(args, task)
    original = Original(args, state)
    options = convert_options(args)
    model = Difformer.build_model(options.model, task).eval()
    model.load_state_dict(convert_weights(state, options.model), strict=True)

    source, target = sentences([4, 7, 2]), sentences([6, 3, 5], "target")
    padding, source_padding = target == PAD, source == PAD
    states = original.encode(source)
    memory = model.encoder(source)
    close = {"atol": 1e-5, "rtol": 1e-5}
    torch.testing.assert_close(memory.states, states, **close)
    assert torch.equal(memory.mask, ~source_padding)
    torch.testing.assert_close(
        model.length_predictor(memory), original.length_logits(states, source_padding), **close
    )
    lengths = torch.tensor([8, 5, 7])
    offset = 128 - torch.tensor([6, 9, 4]) if args.pred_length_offset else 0
    assert torch.equal(model.length_predictor.classes(lengths, memory), lengths + offset)

    torch.testing.assert_close(model.denoiser.embed(target), original.z_0(target), **close)
    z_t, previous = torch.randn(2, *target.shape, args.latent_dim)
    t = torch.tensor([0, 57, 199])
    expected = original.denoise(z_t, previous, t, padding, states, source_padding)
    ours = model.denoiser(z_t, t, ~padding, memory, previous)
    torch.testing.assert_close(ours, expected, **close)
    torch.testing.assert_close(
        model.denoiser.output_projection(ours), original.logits(expected), **close
    )


def test_every_value_of_every_setting_was_drawn():
    drawn = [case.values[0] for case in combinations()]
    for name, values in OTHERS.items():
        assert {settings[name] for settings in drawn} == set(values)
