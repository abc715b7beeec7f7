"""Weights of rerankers: BLEU of the choice against exhaustive search."""

from itertools import product

import numpy as np
import pytest
from sacrebleu.metrics import BLEU

from difformer_plugin.tuning import expected_bleu
from difformer_plugin.tuning.expected_bleu import (
    bleu_of_choice,
    chosen,
    corpus_bleu,
    cross_validated_choice,
    expected_log_bleu,
    fit_weights,
    select,
    winners,
)
from difformer_plugin.tuning.trials import bleu


def toy(sentences=12, candidates=5, rerankers=2, seed=0):
    """Scores and statistics of candidates; the first score tells a little of their quality."""
    random = np.random.default_rng(seed)
    totals = random.integers(6, 15, (sentences, candidates, 1)) - np.arange(4)
    quality = random.uniform(0.1, 0.9, (sentences, candidates, 1))
    matches = np.maximum(np.floor(totals * quality ** np.arange(1, 5)), 1).astype(int)
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


@pytest.mark.parametrize("seed", range(5))
def test_expected_bleu_is_that_of_all_choices(seed):
    """By enumeration of the choices, and its gradient by differences."""
    scores, statistics = toy(3, 2, rerankers=2, seed=seed)
    weights = np.array([0.7, -0.4])
    probs = np.exp(scores @ weights)
    probs /= probs.sum(1, keepdims=True)
    expected = sum(
        np.prod([probs[s, i] for s, i in enumerate(choice)])
        * chosen(statistics, np.array(choice)).sum(0)
        for choice in product(range(2), repeat=3)
    )
    found, gradient = expected_log_bleu(weights, scores, statistics)
    assert 100 * np.exp(found) == pytest.approx(float(corpus_bleu(expected)), rel=1e-3)
    for m, step in enumerate(1e-5 * np.eye(2)):
        ends = [expected_log_bleu(weights + x, scores, statistics)[0] for x in (step, -step)]
        assert gradient[m] == pytest.approx((ends[0] - ends[1]) / 2e-5, abs=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_fitted_weights_are_those_of_exhaustive_search(seed, monkeypatch):
    """No weights on a fine grid are better, and BLEU of the choice is near the highest there is."""
    monkeypatch.setattr(expected_bleu, "PENALTY", 1e-3)
    scores, statistics = toy(80, seed=seed)
    weights = fit_weights(scores, statistics)
    assert np.abs(weights).max() == 1
    scales = expected_bleu._spreads(scores)

    def value(point):
        log_bleu, _ = expected_log_bleu(point, scores / scales, statistics)
        return log_bleu - 1e-3 * (point @ point)

    grid = [np.array(point) for point in product(np.linspace(-12, 12, 81), repeat=2)]
    best = max(grid, key=value)
    sizes = np.linspace(0, 20, 401)
    direction = weights * scales / np.linalg.norm(weights * scales)
    assert max(value(size * direction) for size in sizes) >= value(best) - 1e-5
    angles = np.linspace(0, 2 * np.pi, 721)
    choices = [np.array([np.cos(x), np.sin(x)]) for x in angles]
    highest = max(bleu_of_choice(scores, statistics, each) for each in choices)
    ours = bleu_of_choice(scores, statistics, weights)
    assert highest >= ours >= highest - 1.5 and ours == pytest.approx(
        bleu_of_choice(scores, statistics, best / scales), abs=0.7
    )


def test_size_of_scores_does_not_matter():
    scores, statistics = toy(40, rerankers=3, seed=3)
    ours = fit_weights(scores, statistics)
    sizes = np.array([1, 1000, 1e-3])
    scaled = fit_weights(scores * sizes, statistics) * sizes
    assert scaled / np.abs(scaled).max() == pytest.approx(ours, rel=1e-2)


def test_what_gains_nothing_is_not_selected():
    """The second score is the first with less noise, the third is nothing but noise."""
    random = np.random.default_rng(0)
    _, statistics = toy(300, 6, seed=4)
    quality = corpus_bleu(statistics + 0.0) / 20
    noise = random.normal(size=(3, *quality.shape))
    scores = np.stack([quality + noise[0], quality + 0.7 * noise[1], noise[2]], -1)
    numbers, choice = select(scores, statistics)
    assert numbers == [1, 0]
    gain = corpus_bleu(chosen(statistics, choice).sum(0))
    assert gain > bleu_of_choice(scores, statistics, np.eye(3)[1])


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
