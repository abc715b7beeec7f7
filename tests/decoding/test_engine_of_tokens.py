"""The engine and the oracle decode models of discrete diffusion alike."""

import pytest
import torch
from discrete_kinds import DECODINGS, FIXED, KINDS
from drawn_candidates import assert_same, race_scores_of

from difformer_plugin.decoding import engine, oracle
from difformer_plugin.decoding.graphs import Recordings
from difformer_plugin.decoding.options import DecodingOptions
from difformer_plugin.decoding.speedups import ENGINE, PLAIN, Speedups
from difformer_plugin.diffusion.noise import sentence_keys

BOS, PAD, EOS, UNK = 0, 1, 2, 3
LENGTHS = [5, 2, 9, 4, 7]
STEPS = 5
TOLERANCE = 1e-3
PADDED = Speedups(share=True, pack=False, chunk=True, count=True)
every_sampler = pytest.mark.parametrize("name, options, temperature", DECODINGS)


@pytest.fixture
def draw(sentences, task):
    """A function from a model and options to the candidates of some sentences, four of each."""
    source = sentences(LENGTHS)

    def draw(model, speedups=ENGINE, history=False, seed=1, **options):
        options = DecodingOptions(**({"decoding_steps": STEPS} | options))
        lengths = torch.tensor([[n + 2 + d for d in (1, 0, 3, 0)] for n in LENGTHS])
        if not model.predicts_length:
            lengths = torch.full_like(lengths, 2)
        keys = sentence_keys(source, PAD, seed)
        with torch.no_grad():
            memory = model.encoder(source)
            if speedups == PLAIN:
                return oracle.decode(model, options, memory, lengths, keys, history)
            scores = race_scores_of(options, task.target_dictionary)
            return engine.decode(model, options, memory, lengths, keys, history, speedups, scores)

    return draw


@every_sampler
def test_the_engine_gives_what_the_oracle_gives(build_loud, draw, name, options, temperature):
    model = build_loud(name)
    options = options | {"decoding_temperature": temperature}
    expected = draw(model, PLAIN, history=True, **options)
    assert len({tuple(c.tokens.tolist()) for c in expected}) > len(LENGTHS)
    for speedups in (ENGINE, PADDED):
        assert_same(draw(model, speedups, history=True, **options), expected, TOLERANCE)
    if name == "flexible":
        return
    shown = options | {"retain_z_0_hat": True}
    guesses = draw(model, PLAIN, history=True, **shown)
    assert_same(draw(model, ENGINE, history=True, **shown), guesses, TOLERANCE)
    mask = model.vocabulary.mask
    for a, b in zip(guesses, expected):
        assert a.tokens.equal(b.tokens) and len(a.history) == a.steps
        assert all(len(x) == len(y) for (x, _), (y, _) in zip(a.history, b.history))
        assert all((x < mask).all() for x, _ in a.history)


@every_sampler
def test_listed_times_are_those_of_the_oracle(build_loud, draw, name, options, temperature):
    """All T times listed are K = T, to the last bit; others are what the oracle makes of them."""
    model = build_loud(name)
    options = options | {"decoding_temperature": temperature}
    steps = model.diffusion_steps or 8
    unit = 1 if model.diffusion_steps else steps
    every = ",".join(str(k / unit if unit > 1 else k) for k in range(steps, 0, -1))
    whole = draw(model, decoding_steps=steps, **options)
    listed = draw(model, decoding_timesteps=every, **options | {"decoding_steps": steps})
    for a, b in zip(whole, listed, strict=True):
        assert a.tokens.equal(b.tokens) and a.log_probs.equal(b.log_probs)
    times = ",".join(str(k / unit if unit > 1 else k) for k in (7, 4, 1))
    options |= {"decoding_timesteps": times, "decoding_steps": 3}
    assert_same(draw(model, **options), draw(model, PLAIN, **options), TOLERANCE)


@every_sampler
def test_what_is_drawn(build_loud, draw, name, options, temperature):
    """Framed tokens: nothing special but <unk>, and no mask; log-probabilities of all of them."""
    model = build_loud(name)
    options = options | {"decoding_temperature": temperature}
    drawn = draw(model, history=True, **options)
    for candidate, length in zip(drawn, [n + 2 + d for n in LENGTHS for d in (1, 0, 3, 0)]):
        tokens, log_probs = candidate.tokens, candidate.log_probs
        assert name == "flexible" or len(tokens) == length
        assert tokens[0] == BOS and tokens[-1] == EOS
        assert (tokens[1:-1] >= UNK).all() and (tokens < model.vocabulary.mask).all()
        assert log_probs.isfinite().all() and (log_probs <= 0).all()
        assert candidate.steps == len(candidate.history) == STEPS + (name == "flexible")
        assert tokens.equal(candidate.history[-1][0])
    with torch.no_grad():  # as likely as ten other types together
        model.denoiser.output_projection.weight[:3] = 50.0
    again = draw(model, history=True, **options)
    assert [c.tokens.tolist() for c in again] == [c.tokens.tolist() for c in drawn]


def test_unk_may_be_drawn(build_loud, draw):
    for name in KINDS:
        model = build_loud(name)
        torch.nn.init.zeros_(model.denoiser.output_projection.weight)
        drawn = draw(model, decoding_temperature=1.0)
        tokens = torch.cat([c.tokens[1:-1] for c in drawn])
        # of 21 equally likely types
        assert 0 < (tokens == UNK).sum() < 0.15 * len(tokens) and len(tokens) > 60


@pytest.mark.parametrize("name", FIXED)
def test_stopping_early(build_loud, draw, name):
    """The rest of the way is one step: all tokens are drawn, and the steps taken are counted."""
    model, options = build_loud(name), {"decoding_temperature": 0.7, "decoding_early_stopping": 3}
    expected = draw(model, PLAIN, history=True, **options)
    assert_same(draw(model, history=True, **options), expected, TOLERANCE)
    for candidate in expected:
        assert candidate.steps == STEPS - 3
        assert ((candidate.tokens >= UNK) & (candidate.tokens < model.vocabulary.mask)).sum() == (
            len(candidate.tokens) - 2
        )


@pytest.mark.parametrize("name", ["mdlm", "d3pm uniform", "flexible"])
@pytest.mark.parametrize("size", [1, 60])
def test_chunks_change_nothing(build_loud, draw, monkeypatch, name, size):
    model = build_loud(name)
    options = {"decoding_temperature": 0.7}
    if name != "flexible":
        options |= {"race_after": 3, "race_keep": 2}
    whole = draw(model, **options)
    monkeypatch.setitem(engine.CHUNK, "cpu", size)
    assert_same(draw(model, **options), whole, TOLERANCE)


@pytest.mark.parametrize("name", FIXED)
def test_the_best_go_on_from_a_race(build_loud, draw, name):
    model, options = build_loud(name), {"decoding_temperature": 0.7}
    guesses = draw(model, PLAIN, history=True, retain_z_0_hat=True, **options)
    raced = draw(model, race_after=3, race_keep=2, **options)
    for s in range(len(LENGTHS)):
        own, ours = guesses[4 * s : 4 * s + 4], raced[4 * s : 4 * s + 4]
        then = [c.history[2] for c in own]
        scores = [round(log_probs.mean().item(), 5) for _, log_probs in then]
        best = sorted(range(4), key=lambda i: -scores[i])[:2]
        assert [i for i, c in enumerate(ours) if not c.dropped] == sorted(best)
        for i, (a, b) in enumerate(zip(ours, own)):
            assert a.tokens.equal(b.tokens if i in best else then[i][0])


# lengths that grow


def test_lengths_grow_up_to_the_longest(build_loud, draw):
    """Lengths differ among sentences and candidates; the longest target is a limit."""
    model = build_loud("flexible")
    drawn = draw(model, history=True, decoding_temperature=0.7)
    assert len({len(c.tokens) for c in drawn}) > 3
    for candidate in drawn:
        lengths = [len(tokens) for tokens, _ in candidate.history]
        assert lengths == sorted(lengths) and lengths[-1] == lengths[-2]
    longest = model.max_positions()[1]
    torch.nn.init.constant_(model.denoiser.insertions.bias, 9.0)
    greedy = draw(model, decoding_temperature=0.7)
    assert_same(greedy, draw(model, PLAIN, decoding_temperature=0.7), TOLERANCE)
    assert {len(c.tokens) for c in greedy} == {longest}
    torch.nn.init.constant_(model.denoiser.insertions.bias, -90.0)
    assert_same(none := draw(model), draw(model, PLAIN), TOLERANCE)
    assert all(c.tokens.tolist() == [BOS, EOS] for c in none)


def test_a_learned_position_for_every_place(build_loud, draw):
    model = build_loud("flexible", decoder_learned_pos=True)
    torch.nn.init.constant_(model.denoiser.insertions.bias, 9.0)
    assert_same(draw(model, PADDED), draw(model, PLAIN), TOLERANCE)


# recordings


@pytest.mark.parametrize("name, options, temperature", DECODINGS)
def test_replayed_predictions(build_loud, draw, monkeypatch, name, options, temperature):
    """Recordings here compute anew from their own tensors: every input has to be copied to them."""

    def record(function):
        output = function().clone()
        return lambda: output.copy_(function()), output

    model = build_loud(name)
    options = options | {"decoding_temperature": temperature}
    seeds = (1, 2)
    expected = [draw(model, PLAIN, seed=seed, **options) for seed in seeds]
    monkeypatch.setattr(engine, "REPLAYING", {"cpu"})
    kept = model.derived["graphs", 0] = Recordings(record)
    for seed, own in zip(seeds, expected):
        assert_same(draw(model, PADDED, seed=seed, **options), own, TOLERANCE)
    assert kept.by_shape
    assert all(shape[1] % 8 == 0 for shape in kept.by_shape)


# precision


@pytest.mark.parametrize("name", KINDS)
def test_half_precision(build_loud, draw, name):
    """Where nothing is drawn, most tokens are those of float32; the frame is there."""
    model = build_loud(name)
    exact, half = (
        draw(model, decoding_precision=precision, decoding_steps=2) for precision in (None, "bf16")
    )
    assert all(c.tokens[0] == BOS and c.tokens[-1] == EOS for c in half)
    agree = [
        (a.tokens == b.tokens).float().mean().item()
        for a, b in zip(exact, half)
        if len(a.tokens) == len(b.tokens)
    ]
    assert len(agree) > len(exact) / 2 and sum(agree) / len(agree) > 0.7
