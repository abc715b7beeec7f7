"""The engine against the oracle, with noise that depends on the position of a token."""

import pytest
import torch
from drawn_candidates import assert_same

from difformer_plugin.decoding import engine, oracle
from difformer_plugin.decoding.options import DecodingOptions
from difformer_plugin.diffusion.noise import sentence_keys

LENGTHS = [5, 2, 9]


@pytest.fixture
def draw(build, sentences):
    """A function that draws six candidates of each of three sentences, of unequal lengths."""
    model = build(
        noise_schedule="positional", rescaling_factor=3.0, self_cond=True, clean_tokens=0.5
    )
    source = sentences(LENGTHS)
    lengths = torch.tensor([[n + 2 + d for d in (1, 0, 3, 0, 5, 2)] for n in LENGTHS])

    def draw(way, rows=slice(None), **options):
        options = DecodingOptions(**({"decoding_steps": 6} | options))
        with torch.no_grad():
            memory = model.encoder(source[rows])
            return way(model, options, memory, lengths[rows], sentence_keys(source[rows], 1, 3))

    return draw


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"decoding_early_stopping": 2, "clamping": True},
        {"decoding_sampler": "ddim", "decoding_eta": 0.5, "decoding_rescaling_factor": 2.0},
        {"decoding_sampler": "dpm_solver", "decoding_steps": 4},
        {"decoding_sampler": "confidence", "decoding_timesteps": "square_root"},
        {"decoding_sampler": "confidence"},
        {"decoding_rescaling_factor": 2.0, "decoding_vp_rf": True},
        {"decoding_noise_schedule": "cosine"},
    ],
    ids=str,
)
def test_engine_and_oracle_agree(draw, options):
    assert_same(draw(engine.decode, **options), draw(oracle.decode, **options))


@pytest.mark.parametrize("sampler", ["ancestral", "ddim", "dpm_solver", "confidence"])
def test_a_sentence_is_translated_as_alone(draw, sampler):
    together = draw(engine.decode, decoding_sampler=sampler)
    for i in range(3):
        alone = draw(engine.decode, slice(i, i + 1), decoding_sampler=sampler)
        assert_same(alone, together[6 * i : 6 * i + 6])
