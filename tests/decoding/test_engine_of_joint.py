"""Decoding with joint models: engine and oracle, infilling of sources and of given tokens."""

import pytest
import torch
from drawn_candidates import assert_same

from difformer_plugin.decoding import engine, oracle
from difformer_plugin.decoding.given import FREE, GivenTokens
from difformer_plugin.decoding.options import DecodingOptions
from difformer_plugin.decoding.speedups import ENGINE, Speedups
from difformer_plugin.diffusion.noise import sentence_keys

PADDED = Speedups(share=True, pack=False, chunk=True, count=True)
ALONE = Speedups(share=False, pack=True, chunk=False, count=False)
MODELS = {
    "partial": {},
    "blind": {"blind_source": True},
    "plain": {"plain_source": True, "restart_positions": True},
    "plain-blind": {"plain_source": True, "restart_positions": True, "blind_source": True},
    "full-restart": {"conditioning": "full", "restart_positions": True},
    "guided-plain": {"source_dropout": 0.3, "plain_source": True, "restart_positions": True},
    "full": {"conditioning": "full"},
    "expected": {"prediction": "expected_embedding"},
    "guided": {"source_dropout": 0.3},
    "guided-blind": {"source_dropout": 0.3, "blind_source": True},
    "guided-full": {"source_dropout": 0.3, "conditioning": "full"},
}
LENGTHS = [5, 2, 9]


@pytest.fixture
def source(sentences):
    return sentences(LENGTHS)


@pytest.fixture
def draw(source):
    """A function that draws four candidates of each of three sentences."""
    lengths = torch.tensor([[n + 2 + d for d in (1, 0, 3, 0)] for n in LENGTHS])

    def draw(model, decode=engine.decode, given=None, rows=slice(None), **options):
        settings = {"history": True, "given": given}
        if decode is engine.decode:
            settings["speedups"] = options.pop("speedups", ENGINE)
        options = DecodingOptions(**({"decoding_steps": 5} | options))
        keys = sentence_keys(source[rows], 1, 7)
        with torch.no_grad():
            return decode(
                model, options, model.encoder(source[rows]), lengths[rows], keys, **settings
            )

    return draw


@pytest.mark.parametrize("speedups", [ENGINE, PADDED, ALONE], ids=["engine", "padded", "alone"])
@pytest.mark.parametrize("kind", MODELS)
def test_the_engine_draws_what_the_oracle_draws(build_joint, draw, kind, speedups):
    model = build_joint(self_cond=True, **MODELS[kind])
    options = {"guidance_scale": 1.5} if "guided" in kind else {}
    if options:
        with torch.no_grad():
            model.denoiser.no_source.normal_()
    found = draw(model, speedups=speedups, **options)
    assert_same(found, draw(model, oracle.decode, **options))
    assert [len(c.tokens) for c in found] == [n + 2 + d for n in LENGTHS for d in (1, 0, 3, 0)]


@pytest.mark.parametrize("infill", ["z_0", "z_t", "noised"])
def test_infilling_of_sources_is_the_same_in_both(build_joint, draw, infill):
    model = build_joint(conditioning="full")
    found = draw(model, infill=infill)
    assert_same(found, draw(model, oracle.decode, infill=infill))
    assert_same(found, draw(model, speedups=PADDED, infill=infill))


def test_ways_of_infilling_differ_in_what_the_network_reads(build_joint, draw, source):
    """Of the source it reads z_0 itself, or z_t: at the last step the noise is nearly gone."""
    seen = {}
    for infill in ("z_0", "z_t", "noised"):
        model, inputs = build_joint(conditioning="full"), []
        own = model.denoiser.denoise

        def denoise(z, t, *rest, own=own, inputs=inputs):
            inputs.append(z.clone())
            return own(z, t, *rest)

        model.denoiser.denoise = denoise
        draw(model, rows=slice(1), infill=infill)
        first = source[0, source[0] != 1]
        z_0 = model.denoiser.embed(first)
        seen[infill] = [(x[: len(first)] - z_0).abs().mean().item() for x in inputs]
    assert seen["z_t"] == [0] * 5
    for infill in ("z_0", "noised"):
        assert seen[infill][0] > 0.5  # as noisy as everything else
        assert seen[infill] == sorted(seen[infill], reverse=True)


def test_a_source_is_read_alike_in_any_batch(build_joint, draw):
    model = build_joint(conditioning="full", self_cond=True)
    alone = [c for i in range(3) for c in draw(model, rows=slice(i, i + 1))]
    assert_same(alone, draw(model))


def test_a_network_that_ignores_its_source_is_not_guided(build_joint, draw, monkeypatch):
    for kind in ("guided", "guided-blind"):
        model = build_joint(**MODELS[kind])
        with torch.no_grad():
            model.denoiser.no_source.normal_()
        own = model.denoiser.source_latents
        monkeypatch.setattr(
            model.denoiser, "source_latents", lambda t, a, own=own: own(t, torch.ones_like(a))
        )
        assert_same(draw(model, guidance_scale=3.0), draw(model))


@pytest.mark.parametrize("kind", ["partial", "full"])
@pytest.mark.parametrize("infill", ["z_0", "z_t", "noised"])
def test_given_tokens_are_in_the_output(build_joint, draw, kind, infill):
    model = build_joint(**MODELS[kind])
    given = torch.full((12, 5), FREE)
    given[:, 1], given[::2, 3] = 7, 9
    for decode in (engine.decode, oracle.decode):
        for i, candidate in enumerate(draw(model, decode, given=given, infill=infill)):
            assert candidate.tokens[1] == 7 and candidate.log_probs[1] == 0
            assert i % 2 or len(candidate.tokens) < 4 or candidate.tokens[3] == 9
            assert all(tokens[1] == 7 for tokens, _ in candidate.history)


def test_with_all_given_the_output_is_the_given(build_joint, draw):
    for kind in ("partial", "full"):
        model = build_joint(**MODELS[kind])
        given = torch.randint(4, 20, (12, 20))
        for own, candidate in zip(given, draw(model, given=given)):
            assert candidate.tokens.tolist() == own[: len(candidate.tokens)].tolist()


def test_given_tokens_follow_what_leads_them(build_joint, source):
    model = build_joint(conditioning="full")
    memory = model.encoder(source)
    given = torch.tensor([[FREE, 5, FREE], [6, FREE, 7], [8, 9, 10]])
    found = GivenTokens.collect(model, memory, [0, 1, 2], given)
    for row, own, wanted, lead in zip(found.tokens, source, given, found.leading):
        first = own[own != 1].tolist()
        assert lead == len(first)
        assert row.tolist()[: lead + 3] == first + wanted.tolist()
        assert set(row.tolist()[lead + 3 :]) <= {FREE}


def test_nothing_is_given_unless_something_is(build, source):
    model = build()
    memory = model.encoder(source.clamp(max=18))
    assert GivenTokens.collect(model, memory, [0, 1, 2]) is None


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@pytest.mark.parametrize("prediction", ["epsilon", "mean"])
def test_what_divides_by_little_is_computed_in_full_precision(
    build_joint, draw, prediction, precision
):
    """With F = 4 the noise is divided by less than half precision can tell from 0."""
    model = build_joint(prediction=prediction, rescaling_factor="4.0", noise_schedule="cosine")
    for candidate in draw(model, decoding_precision=precision):
        assert candidate.log_probs.isfinite().all()
