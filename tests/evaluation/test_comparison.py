"""Buckets, the regression on source lengths, BLEU by step, and length errors."""

import numpy as np
import pytest
from scipy import stats

from difformer_plugin.errors import UserError
from difformer_plugin.evaluation import comparison
from difformer_plugin.evaluation.inputs import System
from difformer_plugin.evaluation.metrics import corpus_bleu


@pytest.fixture
def lengths():
    return np.random.default_rng(0).integers(3, 40, 200).tolist()


@pytest.mark.parametrize("buckets", [1, 4, 7, [10, 20, 30], [5], [100]])
def test_buckets_hold_every_sentence_once(lengths, buckets):
    found = comparison.length_buckets(lengths, buckets)
    assert sorted(i for _, _, inside in found for i in inside) == list(range(200))
    for low, high, inside in found:
        own = [lengths[i] for i in inside]
        assert (min(own), max(own)) == (low, high)
    for (_, high, _), (low, _, _) in zip(found, found[1:]):
        assert high < low  # sentences of one length stay together


def test_buckets_have_equal_population_or_the_given_edges(lengths):
    sizes = [len(inside) for _, _, inside in comparison.length_buckets(lengths, 4)]
    most = max(lengths.count(length) for length in lengths)
    assert len(sizes) == 4 and all(abs(size - 50) <= most for size in sizes)
    given = comparison.length_buckets(lengths, [10, 20])
    assert [high for _, high, _ in given] == [10, 20, max(lengths)]
    assert comparison.length_buckets([7, 7, 7], 5) == [(7, 7, [0, 1, 2])]


@pytest.mark.parametrize("text", ["0", "x", "5,x", "20,10", "10,10", "-3", ""])
def test_malformed_buckets_are_refused(text):
    with pytest.raises(UserError, match="--buckets"):
        comparison.parse_buckets(text)


def test_parse_buckets():
    assert comparison.parse_buckets("5") == 5
    assert comparison.parse_buckets("10,20,30") == [10, 20, 30]


def test_bleu_by_length_scores_each_bucket_separately():
    tokens, references = ["a b c d", "e f g h i", "x"], ["a b c d", "e f g h j", "e f"]
    systems = [System("a", [], tokens, []), System("b", [], references, [])]
    first, second = comparison.bleu_by_length([2, 9, 2], systems, references, [5])
    assert (first["shortest"], first["longest"], first["sentences"]) == (2, 2, 2)
    assert first["bleu"][0] == corpus_bleu(["a b c d", "x"], ["a b c d", "e f"])
    assert second["bleu"] == [corpus_bleu(tokens[1:2], references[1:2]), pytest.approx(100)]


def test_relative_difference():
    assert comparison.relative_difference(30, 20) == pytest.approx(1 / 3)
    assert comparison.relative_difference(20, 30) == pytest.approx(-1 / 3)
    assert comparison.relative_difference(5, 0) == 1 and comparison.relative_difference(0, 5) == -1
    assert comparison.relative_difference(0, 0) == 0


def test_slope_and_t_test_match_the_closed_form(lengths):
    noise = np.random.default_rng(1).normal(size=200)
    y = -0.2 + 0.01 * np.array(lengths) + 0.3 * noise
    fit = comparison.regression(lengths, y.tolist())
    # beta = (D'D)^-1 D'y; t = beta_1 / sqrt(sigma^2 (D'D)^-1_11), sigma^2 = RSS / (n - 2)
    design = np.stack([np.ones(200), lengths], axis=1)
    inverse = np.linalg.inv(design.T @ design)
    beta = inverse @ design.T @ y
    variance = ((y - design @ beta) ** 2).sum() / (200 - 2)
    t = beta[1] / np.sqrt(variance * inverse[1, 1])
    assert fit["slope"] == pytest.approx(beta[1]) and fit["intercept"] == pytest.approx(beta[0])
    assert fit["t"] == pytest.approx(t) and fit["degrees_of_freedom"] == 198
    assert fit["p_value"] == pytest.approx(2 * stats.t.sf(abs(t), 198))
    # equivalent to the test of Pearson's correlation
    assert fit["p_value"] == pytest.approx(stats.pearsonr(lengths, y).pvalue)
    swapped = comparison.regression(lengths, (-y).tolist())
    assert swapped["t"] == pytest.approx(-fit["t"])


def test_regression_reports_means_by_length():
    fit = comparison.regression([2, 5, 2, 9], [0.5, -1.0, 0.1, 0.3])
    assert fit["mean_by_length"] == [(2, pytest.approx(0.3), 2), (5, -1.0, 1), (9, 0.3, 1)]


def test_regression_of_too_few_sentences_or_equal_lengths():
    assert comparison.regression([4, 4, 4], [0.1, 0.2, 0.3]) is None
    assert comparison.regression([4, 5], [0.1, 0.2]) is None
    equal = comparison.regression([3, 4, 5], [0.0, 0.0, 0.0])
    assert equal["slope"] == 0 and equal["t"] is None and equal["p_value"] is None


def test_bleu_by_step():
    references = ["a b c d e", "f g h i j"]
    steps = [["x", "a b c d", "a b c d e"], ["f g h i k", "f g h i j"]]
    system = System("s", [], [own[-1] for own in steps], [], steps)
    assert comparison.bleu_by_step(system, references) == [
        corpus_bleu(["x", "f g h i k"], references),
        corpus_bleu(["a b c d", "f g h i j"], references),
        pytest.approx(100),
    ]
    assert comparison.bleu_by_step(System("s", [], [], []), references) is None


def test_length_errors():
    system = System("s", [], ["a b c", "a", "a b", ""], [])
    found = comparison.length_errors(system, ["a", "a b", "c d", "e f"])
    assert found == {
        "mean": (2 - 1 + 0 - 2) / 4,
        "exact": 1 / 4,
        "counts": {-2: 1, -1: 1, 0: 1, 2: 1},
    }
