"""Word generation: it ends, whatever the model, and each word is drawn after those before it."""

from types import SimpleNamespace

import pytest
import torch
from drawn_candidates import assert_same

from difformer_plugin.decoding import engine, oracle, words
from difformer_plugin.decoding.candidates import Drawn
from difformer_plugin.decoding.generator import DiffusionGenerator
from difformer_plugin.decoding.given import FREE
from difformer_plugin.decoding.options import DecodingOptions
from difformer_plugin.decoding.sampling import check_decoding
from difformer_plugin.decoding.speedups import PLAIN
from difformer_plugin.diffusion.noise import candidate_keys, sentence_keys
from difformer_plugin.errors import UserError

BOS, PAD, EOS = 0, 1, 2
LENGTHS = [5, 2, 9]
LONGEST = 14


@pytest.fixture(params=[{}, {"blind_source": True}], ids=["joint", "blind"])
def model(request, build_joint):
    model = build_joint(
        generate_words=True, self_cond=True, max_target_positions=LONGEST, **request.param
    )
    with torch.no_grad():  # words of one to four tokens; what is read counts
        model.length_predictor.embed_length.weight[:5] *= 8
        for part in (model.denoiser.project_in_dim, model.denoiser.self_cond_proj):
            for weight in part.parameters():
                weight.mul_(2.5)
    return model


@pytest.fixture
def source(sentences):
    return sentences(LENGTHS)


@pytest.fixture
def draw(source, joined_task):
    """A function that draws two candidates of each sentence."""

    def draw(model, rows=slice(None), decode=engine.decode, history=False, **options):
        own = source[rows]
        with torch.no_grad():
            return words.decode(
                decode,
                joined_task.target_dictionary,
                own,
                model,
                DecodingOptions(**({"decoding_steps": 4} | options)),
                model.encoder(own),
                torch.full((len(own), 2), 2),
                sentence_keys(own, PAD, 7),
                history,
            )

    return draw


def by_hand(model, source, key, number):
    """One candidate, word by word, each by a whole `oracle.decode`."""
    tokens, log_probs, word = [BOS], [0.0], 0
    options = DecodingOptions(decoding_steps=4)
    while tokens[-1] != EOS and len(tokens) < LONGEST:
        memory = model.encoder(torch.tensor([[t for t in source if t != PAD] + tokens]))
        logits = model.length_predictor(memory)[0]
        length = max(range(1, LONGEST - len(tokens) + 1), key=lambda n: logits[n])
        own = candidate_keys(key, torch.tensor([number]), word)
        (drawn,) = oracle.decode(model, options, memory, torch.tensor([[length]]), own)
        for token, log_prob in zip(drawn.tokens.tolist(), drawn.log_probs.tolist()):
            if tokens[-1] != EOS:
                tokens.append(token)
                log_probs.append(log_prob)
        word += 1
    return tokens, log_probs, 4 * word


@pytest.mark.parametrize("decode", [engine.decode, oracle.decode])
def test_words_are_those_of_a_loop_by_hand(model, source, draw, decode):
    found = draw(model, decode=decode)
    lengths = set()
    for i, candidate in enumerate(found):
        own = source[i // 2].tolist()
        with torch.no_grad():
            key = sentence_keys(source[i // 2][None], PAD, 7)
            tokens, log_probs, steps = by_hand(model, own, key, i % 2)
        assert candidate.tokens.tolist() == tokens and candidate.steps == steps
        expected = torch.tensor(log_probs)
        torch.testing.assert_close(candidate.log_probs, expected, rtol=1e-3, atol=1e-3)
        lengths.add((len(tokens), steps))
    assert len(lengths) > 1


def test_a_candidate_is_the_same_in_any_batch(model, draw):
    alone = [c for i in range(3) for c in draw(model, slice(i, i + 1), history=True)]
    assert_same(draw(model, history=True), alone, 1e-3)


def test_the_history_has_the_words_so_far(model, draw):
    for candidate in draw(model, history=True):
        assert len(candidate.history) == candidate.steps
        sizes = [len(tokens) for tokens, _ in candidate.history]
        assert sizes == sorted(sizes) and all(
            sizes[k] == sizes[k // 4 * 4] for k in range(len(sizes))
        )
        for k, (tokens, log_probs) in enumerate(candidate.history):
            before = sizes[k - 4] if k >= 4 else 1
            kept = min(before, len(candidate.tokens))
            assert tokens[:kept].equal(candidate.tokens[:kept])
            assert log_probs[:kept].equal(candidate.log_probs[:kept])


def test_it_ends_by_itself_at_the_end_and_else_at_the_longest_target(model, draw):
    """Whatever the lengths that are predicted: of one token, or of more than there is room for."""
    for favoured in (1, 3, 200):
        with torch.no_grad():
            model.length_predictor.embed_length.weight.zero_()
        own = model.length_predictor.forward
        model.length_predictor.forward = lambda memory, n=favoured, own=own: (
            own(memory) + (torch.arange(256) == n)
        )
        for candidate in draw(model):
            tokens = candidate.tokens.tolist()
            assert len(tokens) <= LONGEST and tokens[0] == BOS
            assert EOS not in tokens[1:-1]
            assert tokens[-1] == EOS or len(tokens) == LONGEST
        model.length_predictor.forward = own


def test_a_model_that_never_ends_is_stopped(model, draw, joined_task):
    def never(model, options, memory, lengths, keys, history):
        return [Drawn(torch.full((int(n),), 7), torch.zeros(int(n)), 1, []) for n in lengths]

    assert [len(c.tokens) for c in draw(model, decode=never)] == [LONGEST] * 6


def test_the_longest_target_of_a_source(model):
    """The given tokens, three for each of the source, 50 more, and EOS, if the model takes them."""
    begun = [Drawn(torch.ones(size), torch.zeros(size), 0, []) for size in (1, 1, 9)]
    roomy = SimpleNamespace(max_positions=lambda: (1024, 66))
    assert words.longest_targets(roomy, [5, 2, 4], begun) == [61, 52, 66]
    assert words.longest_targets(model, [5, 2, 4], begun) == [LONGEST] * 3


def test_what_follows_the_end_is_left_out():
    word = Drawn(torch.tensor([5, EOS, 6]), torch.tensor([-1.0, -2.0, -3.0]), 4, [])
    before = Drawn(torch.tensor([BOS]), torch.zeros(1), 2, [])
    drawn = words.followed(before, word, EOS)
    assert drawn.tokens.tolist() == [BOS, 5, EOS] and drawn.log_probs.tolist() == [0, -1, -2]
    assert drawn.steps == 6


@pytest.mark.parametrize("options", [{}, {"noise_beam_size": 3, "bleu_mbr": True}])
def test_the_generator_goes_word_by_word(model, source, joined_task, options):
    options = DecodingOptions(decoding_steps=4, **options)
    generator = DiffusionGenerator(joined_task.target_dictionary, options, 7)
    generator.check_models([model])
    found = generator.generate([model], {"net_input": {"src_tokens": source}})
    plain = DiffusionGenerator(joined_task.target_dictionary, options, 7, speedups=PLAIN)
    expected = plain.generate([model], {"net_input": {"src_tokens": source}})
    assert len(found[0]) == options.noise_beam_size
    assert [h[0]["tokens"].tolist() for h in found] == [h[0]["tokens"].tolist() for h in expected]


@pytest.mark.parametrize(
    "values",
    [
        {"length_beam_size": 2},
        {"force_length": 3},
        {"decoding_autoregressive": True},
        {"race_after": 2, "noise_beam_size": 2},
    ],
    ids=lambda values: next(iter(values)),
)
def test_options_without_meaning_are_refused(model, values):
    name = "--" + next(iter(values)).replace("_", "-")
    with pytest.raises(UserError, match=f"{name} does nothing for this model") as error:
        check_decoding(model, DecodingOptions(decoding_steps=4, **values))
    assert "\n" not in str(error.value)


def test_given_prefixes_are_kept_and_what_stands_elsewhere_is_refused(model, source, joined_task):
    dictionary, options = joined_task.target_dictionary, DecodingOptions(decoding_steps=4)
    generator = DiffusionGenerator(dictionary, options, 7)
    sample = {"net_input": {"src_tokens": source}}
    prefix = torch.tensor([[7, 8, 9], [5, EOS, PAD], [6, 7, 7]])
    found = generator.generate([model], sample, prefix)
    tokens = [own[0]["tokens"].tolist() for own in found]
    assert tokens[0][:4] == [BOS, 7, 8, 9] and tokens[2][:4] == [BOS, 6, 7, 7]
    assert tokens[1] == [BOS, 5, EOS]
    assert found[0][0]["positional_scores"][:4].tolist() == [0] * 4
    assert found[0][0]["positional_scores"][4:].lt(0).any()
    with pytest.raises(UserError, match="given words can only be a prefix"):
        words.begun([BOS, FREE, 7, FREE, EOS], EOS)
    with pytest.raises(UserError, match="given words can only be a prefix"):
        words.begun([BOS, 5, FREE, 7, EOS], EOS)
