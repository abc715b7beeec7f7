"""Training of word generation: which words there are, how often each is drawn, what is read."""

from collections import Counter
from types import SimpleNamespace

import pytest
import torch
from fairseq.data.data_utils import post_process
from hypothesis import given
from hypothesis import strategies as st
from tiny import make_dictionary

from difformer_plugin.data.word_marks import find_joins
from difformer_plugin.errors import UserError
from difformer_plugin.families.joint.config import JointDiffusionConfig, check_config
from difformer_plugin.families.joint.objective import JointDiffusionLoss, JointDiffusionLossConfig
from difformer_plugin.families.joint.words import Words

BOS, PAD, EOS = 0, 1, 2
MARKED = make_dictionary(["a@@", "b@@", "c", "d", "e@@", "f"])
PIECES = make_dictionary(["\u2581a", "\u2581b", "c", "d", "\u2581e", "f"])
SOURCE = torch.tensor([[PAD, PAD, BOS, 5, 6, EOS], [BOS, 4, 5, 6, 7, EOS]])
targets = st.lists(st.lists(st.integers(4, 9), max_size=7), min_size=1, max_size=4)


def batch(rows):
    """Framed rows of tokens, padded on the right."""
    width = max(map(len, rows)) + 2
    return torch.tensor([[BOS, *r, EOS, *[PAD] * (width - len(r) - 2)] for r in rows])


def words_of(row, dictionary, mark):
    """The words of tokens, as fairseq joins prefixes of them; the end is the last."""
    words, text = [], [dictionary[token] for token in row]
    for i, token in enumerate(row):
        joined = post_process(" ".join(text[: i + 1]), mark).split()
        starts = i == 0 or (
            len(joined) > len(post_process(" ".join(text[:i]), mark).split())
            if mark == "sentencepiece"
            else not text[i - 1].endswith("@@")
        )
        words = [*words, [token]] if starts else [*words[:-1], [*words[-1], token]]
    return [*words, [EOS]]


def splitter(dictionary, mark):
    words = Words(dictionary)
    words.set_joins(find_joins(dictionary, mark))
    return words


@given(targets, st.sampled_from([(MARKED, "@@ "), (PIECES, "sentencepiece")]))
def test_all_words_and_what_comes_before_them_are_enumerated(rows, how):
    """With u in the middle of each of W intervals, each word comes once; the source stays."""
    splits, target = splitter(*how), batch(rows)
    source = batch([[5, 6]] * len(rows)).roll(1, 1)
    for s, row in enumerate(rows):
        expected, seen = words_of(row, *how), []
        for i in range(len(expected)):
            u = torch.full((len(rows),), (i + 0.5) / len(expected))
            chosen = splits.choose(source, target, u)
            read = chosen.source[s][chosen.source[s] != PAD].tolist()
            word = chosen.word[s][chosen.word[s] != PAD].tolist()
            before = [token for own in expected[:i] for token in own]
            assert read == source[s].tolist() + [BOS] + before
            places = chosen.places[s][: len(word)]
            assert target.flatten()[places].tolist() == word
            seen.append(word)
        assert seen == expected


@given(st.floats(0, 1, exclude_max=True, width=32), st.integers(0, 60))
def test_no_number_chooses_beyond_the_end(u, length):
    splits, target = splitter(MARKED, "none"), batch([[6] * length])
    word = splits.choose(target, target, torch.tensor([u])).word
    assert word.tolist() in ([[6]], [[EOS]])


@pytest.fixture
def model(build_joint, joined_task):
    """A model of words of one, two and three tokens."""
    symbols = ["a@@", "b@@", "c", "d", "e@@", "f", *(f"w{i}" for i in range(14))]
    joined_task.source_dictionary = joined_task.target_dictionary = make_dictionary(symbols)
    model = build_joint(joined_task, generate_words=True)
    joined_task.cfg = SimpleNamespace(data="nowhere", eval_bleu_remove_bpe="@@ ")
    model.prepare_training(joined_task)
    return model


TARGET = batch([[4, 5, 6, 7], [8, 9, 7, 6, 7]])  # a@@b@@c d, and e@@f d c d


def test_in_training_all_words_are_equally_likely(model):
    model.train()
    counts = [Counter(), Counter()]
    with torch.no_grad():
        for _ in range(10):
            output = model(SOURCE.repeat(60, 1), TARGET.repeat(60, 1))
            for row in range(120):
                tokens = output.tokens[output.rows == row].tolist()
                counts[row % 2][tuple(tokens)] += 1
    assert set(counts[0]) == {(4, 5, 6), (7,), (EOS,)}
    # 7 and 6 are words of the second target; 7 is two of them
    assert set(counts[1]) == {(8, 9), (7,), (6,), (EOS,)}
    for own, share in ((counts[0], {}), (counts[1], {(7,): 2})):
        total = sum(share.get(word, 1) for word in own)
        chi = sum((n - (e := 600 * share.get(word, 1) / total)) ** 2 / e for word, n in own.items())
        assert chi < 16.3  # 0.1 % of 3 degrees of freedom


def test_validation_is_the_same_in_any_batch(model):
    both = model(SOURCE, TARGET)
    again = model(SOURCE, TARGET)
    assert both.tokens.equal(again.tokens) and both.z_0_hat.equal(again.z_0_hat)
    for row in (0, 1):
        own = TARGET[row : row + 1, : int(TARGET[row].ne(PAD).sum())]
        alone = model(SOURCE[row : row + 1], own)
        assert alone.tokens.equal(both.tokens[both.rows == row])
        torch.testing.assert_close(
            alone.z_0_hat, both.z_0_hat[both.rows == row], rtol=1e-4, atol=1e-5
        )


def test_lengths_are_those_of_words(model):
    output = model.train()(SOURCE, TARGET)
    sizes = torch.bincount(output.rows, minlength=2)
    assert output.length_classes.equal(sizes)


def test_places_are_those_of_the_whole_target(model):
    output = model.train()(SOURCE, TARGET)
    assert TARGET.flatten()[output.places].equal(output.tokens)


def test_all_parameters_learn(model, joined_task):
    model.train()
    loss = JointDiffusionLoss(JointDiffusionLossConfig(), joined_task)
    sample = {"net_input": {"src_tokens": SOURCE}, "target": TARGET}
    loss(model, sample)[0].backward()
    assert not [name for name, p in model.named_parameters() if p.grad is None]


def test_a_checkpoint_knows_where_words_end(model, build_joint, joined_task):
    other = build_joint(joined_task, generate_words=True)
    assert not other.words.joins_next.any()
    other.load_state_dict(model.state_dict())
    assert other.words.joins_next.nonzero()[:, 0].tolist() == [4, 5, 8]


def test_a_moving_average_of_weights_knows_where_words_end(model):
    """--store-ema multiplies and adds every entry of the state dict, buffers included."""
    target, average = batch([[4, 5, 6, 7], [8, 9]]), Words(model.dictionary)
    average.set_joins(find_joins(model.dictionary, "@@ "))
    expected = average.numbers(target)
    for own in average.buffers():
        for _ in range(50):
            own.mul_(0.99).add_(own.clone(), alpha=0.01 / 0.99)
    assert torch.equal(average.numbers(target), expected)


@pytest.mark.parametrize(
    "options, said",
    [
        ({"conditioning": "full"}, "--generate-words needs .*--conditioning partial"),
        ({"source_dropout": 0.1}, "--generate-words .*--source-dropout"),
        ({"pred_length_offset": True}, "--generate-words .*--pred-length-offset"),
        ({"length_by_padding": True}, "--generate-words .*--length-by-padding"),
    ],
)
def test_contradictions(options, said):
    with pytest.raises(UserError, match=said):
        check_config(JointDiffusionConfig(generate_words=True, **options))
