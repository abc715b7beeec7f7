"""Weights of rerankers: BLEU of the choice against exhaustive search."""

from itertools import product

import numpy as np
import pytest
from sacrebleu.metrics import BLEU

from difformer_plugin.tuning.minimum_error import (
    bleu_of_choice,
    chosen,
    corpus_bleu,
    cross_validated_choice,
    fit_weights,
    line_search,
    winners,
)
from difformer_plugin.tuning.trials import bleu


def toy(sentences=12, candidates=5, rerankers=2, seed=0):
    """Scores and statistics of candidates; the first score tells a little of their quality."""
    random = np.random.default_rng(seed)
    totals = random.integers(6, 15, (sentences, candidates, 1)) - np.arange(4)
    quality = random.uniform(0.1, 0.9, (sentences, candidates, 1))
    matches = np.floor(totals * quality ** np.arange(1, 5)).astype(int)
    statistics = np.concatenate(
        [matches, totals, totals[..., :1], totals[:, :1, :1] + 0 * totals[..., :1]], -1
    )
    scores = random.normal(size=(sentences, candidates, rerankers))
    scores[..., 0] += 2 * quality[..., 0]
    return scores, statistics


@pytest.mark.parametrize("seed", range(20))
def test_bleu_is_sacrebleus(seed):
    _, statistics = toy(3, 4, seed=seed)
    statistics[0, 0, :4] = 0
    statistics[1, :, 3] = 0
    statistics[1, :, 2] = 0
    statistics[2, 0, 7] = statistics[2, 0, 3] = 0
    found = corpus_bleu(statistics)
    for s, i in product(range(3), range(4)):
        assert found[s, i] == pytest.approx(bleu(statistics[s, i]))
    texts, references = ["a b c d e", "f g h"], ["a b c d f", "f h g i"]
    metric = BLEU(tokenize="none", force=True)
    one = [metric.corpus_score([t], [[r]]) for t, r in zip(texts, references)]
    rows = np.array([[*x.counts, *x.totals, x.sys_len, x.ref_len] for x in one])
    expected = metric.corpus_score(texts, [references]).score
    assert corpus_bleu(rows.sum(0)) == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(10))
def test_line_search_is_exact(seed):
    """No step of a fine grid is better, and the one that it finds is as good as it says."""
    scores, statistics = toy(seed=seed, rerankers=3)
    random = np.random.default_rng(100 + seed)
    weights, direction = random.normal(size=(2, 3))
    step, found = line_search(scores, statistics, weights, direction)
    assert bleu_of_choice(scores, statistics, weights + step * direction) == pytest.approx(found)
    grid = np.concatenate([np.linspace(-20, 20, 4001), [-1e4, 1e4]])
    best = max(bleu_of_choice(scores, statistics, weights + x * direction) for x in grid)
    assert found >= best - 1e-9
    assert found <= best + 1e-9 or abs(step) > 20  # nothing that the grid could have seen


@pytest.mark.parametrize("seed", range(5))
def test_fitted_weights_are_as_good_as_exhaustive_search(seed):
    """Two scores: all directions of the plane are tried."""
    scores, statistics = toy(seed=seed)
    weights = fit_weights(scores, statistics)
    angles = np.linspace(0, 2 * np.pi, 3601)
    best = max(bleu_of_choice(scores, statistics, np.array([np.cos(x), np.sin(x)])) for x in angles)
    assert bleu_of_choice(scores, statistics, weights) >= best - 1e-9
    assert np.abs(weights).max() == 1


def test_three_scores_of_different_size():
    """A grid of weights; scores a thousand times as large change nothing."""
    scores, statistics = toy(rerankers=3, seed=3)
    ours = bleu_of_choice(scores, statistics, fit_weights(scores, statistics))
    grid = product(np.linspace(-1, 1, 21), repeat=3)
    best = max(bleu_of_choice(scores, statistics, np.array(point)) for point in grid)
    assert ours >= best - 0.2
    sizes = np.array([1, 1000, 1e-3])
    scaled = bleu_of_choice(scores * sizes, statistics, fit_weights(scores * sizes, statistics))
    assert scaled == pytest.approx(ours, abs=0.5)


def test_equal_candidates_and_lowest_scores():
    scores, statistics = toy(seed=1)
    scores[:, 1], statistics[:, 1] = scores[:, 0], statistics[:, 0]
    scores[:, 2, 1] = np.finfo(np.float32).min
    weights = fit_weights(scores, statistics)
    assert np.isfinite(weights).all()
    assert 1 not in winners(scores, weights)  # the first of equal ones wins


def test_nothing_to_choose_from():
    scores, statistics = toy(candidates=1)
    weights = fit_weights(scores, statistics)
    assert bleu_of_choice(scores, statistics, weights) == pytest.approx(
        float(corpus_bleu(statistics.sum((0, 1))))
    )


def test_cross_validation_chooses_each_sentence_by_the_others():
    """What the other folds say decides, even where the fold itself says the opposite."""
    scores, statistics = toy(40, seed=2)
    choice = cross_validated_choice(scores, statistics, folds=4)
    for fold in range(4):
        own = np.arange(40) % 4 == fold
        weights = fit_weights(scores[~own], statistics[~own])
        assert (choice[own] == winners(scores[own], weights)).all()
    fitted = bleu_of_choice(scores, statistics, fit_weights(scores, statistics))
    assert corpus_bleu(chosen(statistics, choice).sum(0)) <= fitted + 1e-9
