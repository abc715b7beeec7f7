"""The engine against the oracle; racing against the history of the oracle's steps."""

import pytest
import torch
from drawn_candidates import assert_same, race_scores_of

from difformer_plugin.decoding import engine, oracle
from difformer_plugin.decoding.options import DecodingOptions
from difformer_plugin.decoding.speedups import ENGINE, PLAIN, Speedups
from difformer_plugin.diffusion.noise import sentence_keys
from difformer_plugin.reranking.mbr import bleu_scores

LENGTHS = [5, 2, 9, 4, 7]
CALM = 2.5  # some of its candidates converge early, some late
ALONE = [Speedups(*(name == own for name in Speedups._fields)) for own in Speedups._fields]
PADDED = Speedups(share=True, pack=False, chunk=True, count=True)


@pytest.fixture(params=[CALM, 6], ids=["calm", "restless"])
def model(request, build):
    """Random weights; the restless one's that read z_t are so large that tokens always change."""
    model = build(self_cond=True, pred_length_offset=True, share_decoder_input_output_embed=True)
    with torch.no_grad():
        for part in (model.denoiser.project_in_dim, model.denoiser.self_cond_proj):
            for weight in part.parameters():
                weight.mul_(request.param)
    return model


@pytest.fixture
def draw(model, sentences, task):
    """A function from options to the candidates drawn of some sentences, six of each."""
    source = sentences(LENGTHS)
    # lengths in no order, one of them twice
    lengths = torch.tensor([[n + 2 + d for d in (1, 0, 3, 0, 5, 2)] for n in LENGTHS])

    def draw(speedups=ENGINE, history=False, seed=1, **options):
        options = DecodingOptions(**({"decoding_steps": 6} | options))
        keys = sentence_keys(source, 1, seed)
        with torch.no_grad():
            memory = model.encoder(source)
            if speedups == PLAIN:
                return oracle.decode(model, options, memory, lengths, keys, history)
            scores = race_scores_of(options, task.target_dictionary)
            return engine.decode(model, options, memory, lengths, keys, history, speedups, scores)

    return draw


@pytest.mark.parametrize(
    "speedups, options",
    [
        *((own, {}) for own in (ENGINE, *ALONE, Speedups(True, False, True, False))),
        (ENGINE, {"decoding_early_stopping": 2, "clamping": True}),
        (ENGINE, {"decoding_fixed_t": 0.4, "decoding_rescaling_factor": 2.0}),
        (ENGINE, {"decoding_timesteps": "46,20,7,3", "soft_clamping": 2}),
    ],
)
def test_the_output_is_that_of_the_oracle(draw, speedups, options):
    assert_same(draw(speedups, history=True, **options), draw(PLAIN, history=True, **options))


@pytest.mark.parametrize("speedups", [ENGINE, PADDED], ids=["engine", "padded"])
@pytest.mark.parametrize(
    "options",
    [{}, {"decoding_fresh_noise": True}, {"decoding_early_stopping": 2, "clamping": True}],
    ids=["posterior", "fresh", "stopped"],
)
def test_deciding_tokens_is_that_of_the_oracle(draw, model, speedups, options):
    model.cfg.clean_tokens = 0.5
    options = {"decoding_sampler": "confidence", **options}
    plain = draw(PLAIN, history=True, **options)
    assert_same(draw(speedups, history=True, **options), plain)
    other = draw(
        PLAIN, history=True, **(options | {"decoding_sampler": None, "decoding_fresh_noise": False})
    )
    assert any(not torch.equal(a.tokens, b.tokens) for a, b in zip(plain, other))


def test_decided_tokens_have_the_probability_of_a_prediction(draw, model):
    """Not that of their own embeddings in the rounding, which says nothing of the source."""
    model.cfg.clean_tokens = 0.5
    options = {"decoding_sampler": "confidence", "retain_z_0_hat": True}
    for candidate in draw(PLAIN, history=True, **options):
        predicted = torch.stack(
            [
                torch.where(tokens == candidate.tokens, log_probs, torch.nan)
                for tokens, log_probs in candidate.history
            ]
        )
        assert ((predicted - candidate.log_probs).abs() < 1e-6).any(0).all()


def test_predictions_are_those_of_the_oracle(draw, model, monkeypatch):
    """z_0-hat of the last step, within 1e-4."""
    seen, own = [], type(model).round

    def round(self, z):
        seen.append(z)
        return own(self, z)

    monkeypatch.setattr(type(model), "round", round)
    monkeypatch.setitem(engine.CHUNK, "cpu", 2**20)  # in the order of the longest sentence first
    for speedups in (ENGINE, PLAIN):
        draw(speedups)
    ours, theirs = seen
    totals = [6 * n + 6 * 2 + 11 for n in LENGTHS]
    runs = theirs.split(totals)
    order = sorted(range(len(LENGTHS)), key=lambda s: -totals[s])
    assert (ours - torch.cat([runs[s] for s in order])).abs().max() < 1e-4


@pytest.mark.parametrize("sampler", ["ancestral", "ddim", "dpm_solver"])
def test_the_times_of_the_uniform_grid_can_be_listed(draw, sampler):
    """To the last bit; and all T times listed are K = T."""
    evenly = draw(decoding_sampler=sampler, history=True)
    listed = draw(
        decoding_sampler=sampler,
        history=True,
        decoding_timesteps="50,40,30,21,11,1",
        decoding_steps=6,
    )
    whole = draw(decoding_sampler=sampler, decoding_steps=50)
    every = ",".join(map(str, range(50, 0, -1)))
    for expected, found in [
        (evenly, listed),
        (whole, draw(decoding_sampler=sampler, decoding_timesteps=every, decoding_steps=50)),
    ]:
        for a, b in zip(expected, found, strict=True):
            assert a.tokens.equal(b.tokens) and a.log_probs.equal(b.log_probs)
            assert all(x.equal(y) for p, q in zip(a.history, b.history) for x, y in zip(p, q))
    for timesteps in ("quadratic", "square_root"):
        others = draw(decoding_sampler=sampler, decoding_timesteps=timesteps)
        assert any(not a.log_probs.equal(b.log_probs) for a, b in zip(evenly, others))


@pytest.mark.parametrize("size", [1, 60, 100])
def test_chunks_change_nothing(draw, monkeypatch, size):
    whole = draw(race_after=3, race_keep=2)
    monkeypatch.setitem(engine.CHUNK, "cpu", size)
    assert_same(draw(race_after=3, race_keep=2), whole)


def test_chunks_hold_whole_sentences():
    lengths = [[3, 4], [9, 9], [1, 1], [5, 5]]
    chunks = engine._chunks(lengths, 18)
    assert chunks == [[1], [3, 0], [2]]
    assert sorted(s for chunk in chunks for s in chunk) == [0, 1, 2, 3]
    assert engine._chunks(lengths, None) == [[0, 1, 2, 3]]
    assert engine._chunks(lengths, 1) == [[1], [3], [0], [2]]


@pytest.mark.parametrize("speedups", [ENGINE, PADDED], ids=["packed", "padded"])
@pytest.mark.parametrize("reranker", ["bleu_mbr", "own"])
@pytest.mark.parametrize("keep", [1, 4])
def test_the_best_go_on_from_a_race(draw, speedups, reranker, keep):
    """Those that are best after three steps end as they would have, the others stop there."""
    options = {"bleu_mbr": True} if reranker == "bleu_mbr" else {}
    expected = draw(PLAIN, history=True, retain_z_0_hat=True, **options)
    raced = draw(speedups, race_after=3, race_keep=keep, **options)
    for s in range(len(LENGTHS)):
        own, ours = expected[6 * s : 6 * s + 6], raced[6 * s : 6 * s + 6]
        then = [c.history[2] for c in own]
        if reranker == "own":
            scores = [log_probs.mean().item() for _, log_probs in then]
        else:
            # numbers as words, which sacrebleu leaves whole
            scores = bleu_scores([" ".join(map(str, t[1:-1].tolist())) for t, _ in then])
        best = sorted(range(6), key=lambda i: -round(scores[i], 6))[:keep]
        assert [i for i, c in enumerate(ours) if not c.dropped] == sorted(best)
        for i, (a, b) in enumerate(zip(ours, own)):
            assert a.tokens.equal(b.tokens if i in best else then[i][0])
            assert a.steps == (6 if i in best else 3)


def test_half_precision_is_close(draw, model):
    """Many tokens are the same, and log-probabilities differ: it is another computation."""
    exact, half = draw(), draw(decoding_precision="bf16")
    agree = torch.cat([a.tokens == b.tokens for a, b in zip(exact, half)]).float().mean()
    differ = torch.cat([a.log_probs - b.log_probs for a, b in zip(exact, half)]).abs()
    assert agree > 0.3 and differ.max() > 0
    assert_same(draw(decoding_precision="fp32"), exact)
