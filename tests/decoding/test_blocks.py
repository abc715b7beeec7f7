"""Sampling in blocks against sampling all at once, and against a loop by hand."""

import pytest
import torch
from drawn_candidates import assert_same, race_scores_of

from difformer_plugin.decoding import blocks, engine, oracle
from difformer_plugin.decoding.given import FREE
from difformer_plugin.decoding.options import DecodingOptions
from difformer_plugin.decoding.speedups import ENGINE, Speedups
from difformer_plugin.diffusion.noise import candidate_keys, sentence_keys

BOS, PAD, EOS = 0, 1, 2
LENGTHS = [5, 2, 9]
BEAM = 4
PADDED = Speedups(share=True, pack=False, chunk=True, count=True)
JOINT = {
    "partial": {},
    "blind": {"blind_source": True},
    "full": {"conditioning": "full"},
}
DISCRETE = ("d3pm uniform", "mdlm", "sedd absorbing")
KINDS = ["difformer", *JOINT, *DISCRETE]


@pytest.fixture
def model(request, build, build_joint, build_loud):
    """A model of a kind, whose weights are so large that what it reads counts."""
    kind = request.param
    if kind in DISCRETE:
        return build_loud(kind)
    if kind in JOINT:
        model = build_joint(self_cond=True, **JOINT[kind])
    else:
        model = build(self_cond=True, share_decoder_input_output_embed=True)
    with torch.no_grad():
        for part in (model.denoiser.project_in_dim, model.denoiser.self_cond_proj):
            for weight in part.parameters():
                weight.mul_(2.5)
    return model


every_model = pytest.mark.parametrize("model", KINDS, indirect=True)
some_models = pytest.mark.parametrize("model", ["difformer", "full", "mdlm"], indirect=True)


@pytest.fixture
def draw(sentences, task):
    """A function that draws four candidates of each of three sentences."""
    source = sentences(LENGTHS).clamp(max=18)
    lengths = torch.tensor([[n + 2 + d for d in (1, 0, 3, 0)] for n in LENGTHS])

    def draw(model, way="blocks", rows=slice(None), decode=engine.decode, given=None, **options):
        settings = {"history": options.pop("history", False), "given": given}
        options = DecodingOptions(**({"decoding_steps": 4} | options))
        if decode is engine.decode:
            own = options if way == "blocks" else None
            race_scores = race_scores_of(own or options, task.target_dictionary)

            def decode(*args, **more):
                return engine.decode(*args, speedups=ENGINE, race_scores=race_scores, **more)

        if way == "blocks":
            first = decode

            def decode(*args, **more):
                return blocks.decode(first, EOS, *args, **more)

        keys = sentence_keys(source[rows], PAD, 7)
        with torch.no_grad():
            memory = model.encoder(source[rows])
            return decode(model, options, memory, lengths[rows], keys, **settings)

    draw.source, draw.lengths = source, lengths
    return draw


def by_hand(model, options, memory, length, key, number, given):
    """One candidate of one sentence, block by block, each by a whole `oracle.decode`."""
    size, tokens, log_probs, steps = options.block_size, [], [], 0
    last = max((i for i, t in enumerate(given) if t != FREE), default=-1)
    for block in range(length):
        row = tokens + given[len(tokens) :]
        (drawn,) = oracle.decode(
            model,
            options,
            memory,
            torch.tensor([[length]]),
            candidate_keys(key, torch.tensor([number]), block),
            given=torch.tensor([row]),
        )
        begin, end = len(tokens), 1 + (block + 1) * size
        finished = end >= length - 1
        end = length if finished else end
        tokens += drawn.tokens.tolist()[begin:end]
        log_probs += drawn.log_probs.tolist()[begin:end]
        steps += drawn.steps
        if finished:
            break
        ends = [i for i in range(max(begin, 1), end) if tokens[i] == EOS and i >= last]
        if ends:
            tokens, log_probs = tokens[: ends[0] + 1], log_probs[: ends[0] + 1]
            break
    return tokens, log_probs, steps


@every_model
@pytest.mark.parametrize("size", [1, 3])
def test_blocks_are_those_of_a_loop_by_hand(model, draw, size):
    options = {"decoding_autoregressive": True, "block_size": size}
    given = torch.full((3 * BEAM, 7), FREE)
    given[1, 2], given[2, 5], given[5, 1], given[8:10, 3:6] = 6, 7, 8, 9
    own = DecodingOptions(decoding_steps=4, **options)
    ways = [
        draw(model, decode=decode, given=given, **options)
        for decode in (engine.decode, oracle.decode)
    ]
    for i, found in enumerate(zip(*ways, strict=True)):
        s = torch.tensor([i // BEAM])
        length = int(draw.lengths[s, i % BEAM])
        row = (given[i].tolist() + [FREE] * length)[:length]
        with torch.no_grad():
            memory = model.encoder(draw.source[s])
            key = sentence_keys(draw.source[s], PAD, 7)
            expected = by_hand(model, own, memory, length, key, i % BEAM, row)
        for candidate in found:
            assert candidate.tokens.tolist() == expected[0]
            torch.testing.assert_close(
                candidate.log_probs, torch.tensor(expected[1]), rtol=1e-3, atol=1e-3
            )
            assert candidate.steps == expected[2]


@every_model
@pytest.mark.parametrize("decode", [engine.decode, oracle.decode])
def test_a_block_as_long_as_the_target_is_sampling_all_at_once(model, draw, decode):
    whole = draw(model, "all", decode=decode, history=True)
    subwords = max(LENGTHS) + 3
    options = {"decoding_autoregressive": True, "block_size": subwords, "history": True}
    assert_same(draw(model, decode=decode, **options), whole, tolerance=0)


@every_model
def test_a_candidate_is_the_same_in_any_batch(model, draw):
    options = {"decoding_autoregressive": True, "block_size": 2, "history": True}
    alone = [c for i in range(3) for c in draw(model, rows=slice(i, i + 1), **options)]
    assert_same(draw(model, **options), alone, tolerance=1e-3)


@some_models
def test_what_was_kept_stays(model, draw):
    """The history of later blocks has what earlier ones kept, with its log-probability."""
    found = draw(model, decoding_autoregressive=True, block_size=2, history=True)
    for candidate, length in zip(found, draw.lengths.flatten().tolist()):
        assert len(candidate.history) == candidate.steps
        for k, (tokens, log_probs) in enumerate(candidate.history):
            assert len(tokens) == length
            kept = k // 4 * 2 + (k >= 4)  # BOS comes with the first block
            assert tokens[:kept].equal(candidate.tokens[:kept])
            assert log_probs[:kept].equal(candidate.log_probs[:kept])
        assert candidate.steps == 4 or candidate.log_probs[1:].lt(0).any()


@some_models
def test_given_tokens_are_in_the_output(model, draw):
    given = torch.full((3 * BEAM, 5), FREE)
    given[:, 1], given[::2, 4] = 7, 9
    found = draw(model, given=given, decoding_autoregressive=True, block_size=1)
    for i, candidate in enumerate(found):
        length = int(draw.lengths.flatten()[i])
        assert candidate.tokens[1] == 7 and candidate.log_probs[1] == 0
        assert i % 2 or length < 5 or candidate.tokens[4] == 9


def scripted(texts, steps=3):
    """A decode that draws prepared texts, and notes what was given and by which keys."""
    calls = []

    def draw(model, options, memory, lengths, keys, history, given=None):
        calls.append((given, memory, lengths, keys, options))
        drawn = []
        for row, length in zip(memory.repeat_interleave(lengths.shape[1]), lengths.flatten()):
            tokens = torch.tensor(texts[int(row)][: int(length)])
            drawn.append(
                oracle.Drawn(tokens, -0.1 * len(calls) * torch.ones(len(tokens)), steps, [])
            )
        return drawn

    return draw, calls


class Rows(torch.Tensor):
    """A memory that only knows which sentences it has."""

    def select(self, rows):
        return self[rows]


def run(draw, lengths, size, given=None):
    memory = torch.arange(len(lengths)).as_subclass(Rows)
    options = DecodingOptions(decoding_autoregressive=True, block_size=size)
    return blocks.decode(
        draw, EOS, None, options, memory, torch.tensor(lengths), torch.arange(3), given=given
    )


def test_a_candidate_ends_at_eos_and_leaves_the_batch():
    texts = {0: [BOS, 5, 6, EOS, 7, 8, 9, EOS], 1: [BOS, 5, EOS], 2: [BOS, 4, 4, 4, 4, 4, 4, EOS]}
    draw, calls = scripted(texts)
    first, second, third = run(draw, [[8], [3], [8]], 2)
    assert first.tokens.tolist() == [BOS, 5, 6, EOS]
    assert second.tokens.tolist() == texts[1] and third.tokens.tolist() == texts[2]
    assert [c.steps for c in (first, second, third)] == [6, 3, 9]
    assert [memory.tolist() for _, memory, *_ in calls] == [[0, 1, 2], [0, 2], [2]]
    assert third.log_probs.tolist() == pytest.approx([-0.1] * 3 + [-0.2] * 2 + [-0.3] * 3)
    assert [g if g is None else g.tolist() for g, *_ in calls] == [
        None,
        [[BOS, 5, 6], [BOS, 4, 4]],
        [[BOS, 4, 4, 4, 4]],
    ]


def test_eos_ends_nothing_before_a_given_token():
    texts = {0: [BOS, EOS, 6, EOS, 7, 8, 9, EOS]}
    given = torch.tensor([[FREE, FREE, 6, FREE]])
    draw, _ = scripted(texts)
    (own,) = run(draw, [[8]], 1, given)
    assert own.tokens.tolist() == [BOS, EOS, 6, EOS]


def test_an_eos_in_the_last_block_is_as_in_sampling_all_at_once():
    texts = {0: [BOS, 5, 6, EOS, 7, EOS]}
    for size, expected in ((4, texts[0]), (3, texts[0][:4]), (2, texts[0])):
        draw, _ = scripted(texts)
        assert run(draw, [[6]], size)[0].tokens.tolist() == expected


@some_models
def test_only_the_first_block_is_a_race(model, draw):
    race = {"race_after": 2, "race_keep": 2, "decoding_autoregressive": True, "block_size": 3}
    raced, whole = draw(model, **race), draw(model, "all", race_after=2, race_keep=2)
    free = draw(model, decoding_autoregressive=True, block_size=3)
    for own, at_once, other in zip(raced, whole, free):
        assert own.dropped == at_once.dropped
        expected = at_once if own.dropped else other
        assert own.tokens.equal(expected.tokens) and own.steps == expected.steps
    assert sum(c.dropped for c in raced) == 6
