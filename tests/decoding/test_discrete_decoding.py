"""Discrete diffusion through the engine, the plain path and the generator."""

import json

import pytest
import torch
from discrete_kinds import FIXED, KINDS, samplers

from difformer_plugin.decoding import engine
from difformer_plugin.decoding import oracle as plain
from difformer_plugin.decoding.generator import DiffusionGenerator
from difformer_plugin.decoding.graphs import Recordings
from difformer_plugin.decoding.options import DecodingOptions
from difformer_plugin.decoding.speedups import ENGINE, PLAIN, Means
from difformer_plugin.diffusion.noise import sentence_keys

BOS, PAD, EOS, UNK = 0, 1, 2, 3
LENGTHS = [5, 2, 9, 4, 7]
STEPS = 5
PADDED = Means(share=True, pack=False, chunk=True, count=True)
CASES = [
    pytest.param(name, options, temperature, id=f"{name} {' '.join(map(str, options.values()))}")
    for name in KINDS
    for options, temperature in zip(samplers(name), (0.7, 0.0, 0.5))
]
cases = pytest.mark.parametrize("name, options, temperature", CASES)


@pytest.fixture
def build_loud(build_discrete):
    """Random weights; what is read counts for much, so that tokens depend on the state."""

    def build_loud(name, **options):
        options = {"self_cond": name != "flexible"} | options
        model = build_discrete(pred_length_offset=True, **KINDS[name], **options)
        with torch.no_grad():
            model.denoiser.project_in_dim.weight.mul_(4)
            model.denoiser.output_projection.weight.mul_(3)
            if name == "flexible":  # some three tokens a gap at first
                torch.nn.init.normal_(model.denoiser.insertions.weight, std=0.3)
                model.denoiser.insertions.bias.fill_(1.0)
        return model

    return build_loud


@pytest.fixture
def draw(sentences):
    """A function from a model and options to the candidates of some sentences, four of each."""
    source = sentences(LENGTHS)

    def draw(model, means=ENGINE, history=False, seed=1, **options):
        options = DecodingOptions(**({"decoding_steps": STEPS} | options))
        lengths = torch.tensor([[n + 2 + d for d in (1, 0, 3, 0)] for n in LENGTHS])
        if model.length_predictor is None:
            lengths = torch.full_like(lengths, 2)
        keys = sentence_keys(source, PAD, seed)
        with torch.no_grad():
            memory = model.encoder(source)
            if means == PLAIN:
                return plain.decode(model, options, memory, lengths, keys, history)
            return engine.decode(model, options, memory, lengths, keys, history, means)

    return draw


def same(ours, theirs):
    """Whether two lists of Drawn are the same up to round-off."""
    for a, b in zip(ours, theirs, strict=True):
        assert a.tokens.tolist() == b.tokens.tolist()
        torch.testing.assert_close(a.log_probs, b.log_probs, rtol=1e-3, atol=1e-3)
        assert a.steps == b.steps and a.dropped == b.dropped and len(a.history) == len(b.history)
        for (x, p), (y, q) in zip(a.history, b.history):
            assert x.tolist() == y.tolist()
            torch.testing.assert_close(p, q, rtol=1e-3, atol=1e-3)


# engine and plain path


@cases
def test_the_engine_is_the_plain_path(build_loud, draw, name, options, temperature):
    model = build_loud(name)
    options = options | {"decoding_temperature": temperature}
    expected = draw(model, PLAIN, history=True, **options)
    assert len({tuple(c.tokens.tolist()) for c in expected}) > len(LENGTHS)
    for means in (ENGINE, PADDED):
        same(draw(model, means, history=True, **options), expected)
    if name == "flexible":
        return
    shown = options | {"retain_z_0_hat": True}
    guesses = draw(model, PLAIN, history=True, **shown)
    same(draw(model, ENGINE, history=True, **shown), guesses)
    mask = model.vocabulary.mask
    for a, b in zip(guesses, expected):
        assert a.tokens.equal(b.tokens) and len(a.history) == a.steps
        assert all(len(x) == len(y) for (x, _), (y, _) in zip(a.history, b.history))
        assert all((x < mask).all() for x, _ in a.history)


@cases
def test_what_is_drawn(build_loud, draw, name, options, temperature):
    """Framed words: nothing special but <unk>, and no mask; log-probabilities of all of them."""
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


def test_unknown_words_may_be_drawn(build_loud, draw):
    for name in KINDS:
        model = build_loud(name)
        torch.nn.init.zeros_(model.denoiser.output_projection.weight)
        drawn = draw(model, decoding_temperature=1.0)
        words = torch.cat([c.tokens[1:-1] for c in drawn])
        # of 21 equally likely types
        assert 0 < (words == UNK).sum() < 0.15 * len(words) and len(words) > 60


@pytest.mark.parametrize("name", FIXED)
def test_stopping_early(build_loud, draw, name):
    """The rest of the way in one step: all words are there, as many steps are counted."""
    model, options = build_loud(name), {"decoding_temperature": 0.7, "decoding_early_stopping": 3}
    expected = draw(model, PLAIN, history=True, **options)
    same(draw(model, history=True, **options), expected)
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
        options |= {"halt_after": 1, "race_after": 3, "race_keep": 2}
    whole = draw(model, **options)
    monkeypatch.setitem(engine.CHUNK, "cpu", size)
    same(draw(model, **options), whole)


@pytest.mark.parametrize("means", [ENGINE, PADDED], ids=["packed", "padded"])
@pytest.mark.parametrize("name, options, temperature", [c for c in CASES if "flexible" not in c.id])
def test_who_comes_to_rest_halts(build_loud, draw, means, name, options, temperature):
    """With the tokens that the network has named for `halt_after` steps, as its guesses say."""
    model = build_loud(name)
    options = options | {"decoding_temperature": temperature}
    guesses = draw(model, PLAIN, history=True, retain_z_0_hat=True, **options)
    halted = draw(model, means, halt_after=1, **options)
    for ours, theirs in zip(halted, guesses):
        assert ours.steps == expected_halt([x for x, _ in theirs.history])
        at_rest = ours.steps < STEPS
        assert ours.tokens.equal(theirs.history[ours.steps - 1][0] if at_rest else theirs.tokens)


def expected_halt(history):
    for taken, (before, tokens) in enumerate(zip(history, history[1:]), 2):
        if tokens.equal(before) and taken < len(history):
            return taken
    return len(history)


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
    """They differ among sentences and candidates, and a greedy network fills all that there is."""
    model = build_loud("flexible")
    drawn = draw(model, history=True, decoding_temperature=0.7)
    assert len({len(c.tokens) for c in drawn}) > 3
    for candidate in drawn:
        lengths = [len(tokens) for tokens, _ in candidate.history]
        assert lengths == sorted(lengths) and lengths[-1] == lengths[-2]
    longest = model.max_positions()[1]
    torch.nn.init.constant_(model.denoiser.insertions.bias, 9.0)
    greedy = draw(model, decoding_temperature=0.7)
    same(greedy, draw(model, PLAIN, decoding_temperature=0.7))
    assert {len(c.tokens) for c in greedy} == {longest}
    torch.nn.init.constant_(model.denoiser.insertions.bias, -90.0)
    same(none := draw(model), draw(model, PLAIN))
    assert all(c.tokens.tolist() == [BOS, EOS] for c in none)


def test_a_learned_position_for_every_place(build_loud, draw):
    model = build_loud("flexible", decoder_learned_pos=True)
    torch.nn.init.constant_(model.denoiser.insertions.bias, 9.0)
    same(draw(model, PADDED), draw(model, PLAIN))


# recordings


@pytest.mark.parametrize("name, options, temperature", CASES)
def test_replayed_predictions(build_loud, draw, monkeypatch, name, options, temperature):
    """With recordings that compute anew, in which all that changes has to arrive."""

    def record(function):
        output = function().clone()
        return lambda: output.copy_(function()), output

    model = build_loud(name)
    options = options | {"decoding_temperature": temperature}
    seeds = (1, 2)
    expected = [draw(model, PLAIN, seed=seed, **options) for seed in seeds]
    monkeypatch.setattr(engine, "REPLAYING", {"cpu"})
    kept = model.derived["recordings"] = Recordings(record)
    for seed, own in zip(seeds, expected):
        same(draw(model, PADDED, seed=seed, **options), own)
    assert kept.kept
    assert all(shape[1] % 8 == 0 for shape in kept.kept)


# the generator


@pytest.fixture
def translate(task):
    def translate(model, source, history=False, means=ENGINE, **options):
        options = DecodingOptions(**({"decoding_steps": STEPS} | options))
        own = DiffusionGenerator(task.target_dictionary, options, 1, history, means)
        own.check_models([model])
        return own.generate([model], {"net_input": {"src_tokens": source}, "id": torch.arange(5)})

    return translate


def tokens_of(hypotheses):
    return [[h["tokens"].tolist() for h in candidates] for candidates in hypotheses]


@cases
def test_a_translation_does_not_depend_on_its_batch(
    build_loud, translate, sentences, name, options, temperature
):
    model, source = build_loud(name), sentences(LENGTHS)
    options = options | {"decoding_temperature": temperature}
    if temperature:
        options |= {"noise_beam_size": 3, "bleu_mbr": name == "mdlm"}
    if name != "flexible":
        options |= {"length_beam_size": 2}
    whole = tokens_of(translate(model, source, **options))
    order = torch.tensor([3, 0, 4, 2, 1])
    assert tokens_of(translate(model, source[order], **options)) == [whole[i] for i in order]
    assert tokens_of(translate(model, source[1:2], **options)) == [whole[1]]


@pytest.mark.parametrize("name", KINDS)
def test_half_precision(build_loud, draw, translate, sentences, name):
    """It is another computation, and near where nothing is drawn; the frame holds."""
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
    whole = model.bfloat16()
    assert len(tokens_of(translate(whole, sentences(LENGTHS), decoding_temperature=0.5))) == 5


@pytest.mark.parametrize("name", ["mdlm", "d3pm uniform", "flexible"])
def test_empty_sources_and_histories(build_loud, translate, sentences, tmp_path, name):
    model, path = build_loud(name), tmp_path / f"{name}.jsonl"
    hypotheses = translate(
        model,
        sentences([5, 0, 3, 2, 4]),
        history=True,
        history_file=str(path),
        decoding_temperature=0.5,
    )
    assert hypotheses[1][0]["tokens"].tolist() == [BOS, EOS]
    assert hypotheses[1][0]["positional_scores"].shape == (2,)
    steps = STEPS + (name == "flexible")
    for (best,) in hypotheses:
        assert best["score"] == pytest.approx(best["positional_scores"].mean().item(), abs=1e-6)
        assert len(best["history"]) == steps
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines
