"""The weights of rerankers whose choice among candidates has the highest BLEU.

BLEU of a choice is a step function of the weights, whose highest steps are chance. Fitted is its
smooth form, the BLEU of the expected statistics if a sentence's candidates are drawn with
probabilities that are the softmax of their weighted scores. A small penalty on the weights keeps
the probabilities from becoming a choice, and so the function smooth.

Source:
    Rosti et al. (2010), BBN System Description for WMT10 System Combination Task: expected BLEU.

Shapes: S sentences, n candidates each, M scores of a candidate. Statistics of BLEU are those of
sacreBLEU: 4 numbers of matching n-grams, 4 of n-grams, the lengths of hypothesis and reference.
"""

from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize

PENALTY = 2e-5  # of the squared weights, of scores of unit spread, against the logarithm of BLEU
TINY = 1e-3  # added to expected counts of n-grams, so that their logarithm exists
FOLDS = 5
MIN_GAIN = 0.05  # BLEU that another reranker must gain in cross-validation
LOWEST = -1e4  # scores are clipped here, so that one of them cannot outweigh all others


def corpus_bleu(statistics: np.ndarray) -> np.ndarray:
    """sacreBLEU's BLEU with exponential smoothing, (...), from statistics (..., 10)."""
    matches, totals = statistics[..., :4].astype(float), statistics[..., 4:8].astype(float)
    length, reference = statistics[..., 8].astype(float), statistics[..., 9].astype(float)
    none = (matches == 0) & (totals > 0)
    smoothed = np.where(none, 0.5 ** np.cumsum(none, -1), matches)
    with np.errstate(divide="ignore", invalid="ignore"):
        log_precision = np.log(smoothed / totals).mean(-1)  # NaN where there are no 4-grams
        penalty = np.minimum(1 - reference / length, 0)
    score = 100 * np.exp(log_precision + penalty)
    possible = (totals > 0).all(-1) & (matches > 0).any(-1) & (length > 0)
    return np.where(possible, score, 0.0)


def winners(scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The candidate with the highest weighted sum, int (S,); the first of equal ones.

    Args:
        scores: (S, n, M).
        weights: (M,).
    """
    return (scores @ weights).argmax(1)


def bleu_of_choice(scores: np.ndarray, statistics: np.ndarray, weights: np.ndarray) -> float:
    """BLEU of the candidates that weights choose.

    Args:
        scores: (S, n, M).
        statistics: (S, n, 10).
        weights: (M,).
    """
    return float(corpus_bleu(chosen(statistics, winners(scores, weights)).sum(0)))


def chosen(statistics: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """The statistics (S, 10) of one candidate a sentence, among (S, n, 10)."""
    return statistics[np.arange(len(statistics)), numbers]


def expected_log_bleu(
    weights: np.ndarray, scores: np.ndarray, statistics: np.ndarray
) -> tuple[float, np.ndarray]:
    """The logarithm of the BLEU (0 to 1) of expected statistics, and its gradient (M,).

    Args:
        weights: (M,).
        scores: (S, n, M).
        statistics: (S, n, 10).
    """
    logits = scores @ weights
    probs = np.exp(logits - logits.max(1, keepdims=True))
    probs /= probs.sum(1, keepdims=True)
    expected = np.einsum("sn,snk->k", probs, statistics)
    matches, totals = expected[:4] + TINY, expected[4:8] + TINY
    length, reference = expected[8] + TINY, expected[9]
    log_bleu = np.log(matches / totals).mean() + min(0.0, 1 - reference / length)
    too_short = length < reference
    slope = np.concatenate([0.25 / matches, -0.25 / totals, [0.0, 0.0]])
    if too_short:
        slope[8:] = reference / length**2, -1 / length
    gain = statistics @ slope  # what a candidate's probability adds, (S, n)
    gain = probs * (gain - (probs * gain).sum(1, keepdims=True))
    return float(log_bleu), np.einsum("sn,snm->m", gain, scores)


def fit_weights(scores: np.ndarray, statistics: np.ndarray) -> np.ndarray:
    """Weights (M,) with the highest expected BLEU, the largest of them 1 or -1.

    Args:
        scores: (S, n, M), higher being better.
        statistics: (S, n, 10).
    """
    scores = np.maximum(scores, LOWEST)
    scales = _spreads(scores)
    scaled, statistics = scores / scales, statistics.astype(float)

    def cost(weights: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = expected_log_bleu(weights, scaled, statistics)
        penalty = PENALTY * (weights @ weights)
        return penalty - value, 2 * PENALTY * weights - gradient

    count = scores.shape[-1]
    starts = [*np.eye(count), np.ones(count) / count]
    ends = [minimize(cost, start, jac=True, method="L-BFGS-B") for start in starts]
    weights = min(ends, key=lambda end: end.fun).x / scales
    return weights / (np.abs(weights).max() or 1.0)


def _spreads(scores: np.ndarray) -> np.ndarray:
    """How much each score varies between a sentence's candidates, (M,): a median, above 0."""
    spread = scores.std(1)
    found = [np.median(own[own > 0]) if (own > 0).any() else 1.0 for own in spread.T]
    return np.array(found)


def cross_validated_choice(
    scores: np.ndarray, statistics: np.ndarray, folds: int = FOLDS
) -> np.ndarray:
    """The choice in each fold of the sentences by weights fitted to the other folds, int (S,).

    Its BLEU estimates that of fitted weights on other data.
    """
    numbers, choice = np.arange(len(scores)) % folds, np.zeros(len(scores), int)
    for fold in range(folds):
        own = numbers == fold
        weights = fit_weights(scores[~own], statistics[~own])
        choice[own] = winners(np.maximum(scores[own], LOWEST), weights)
    return choice


class Selection(NamedTuple):
    """Which of M rerankers are worth having.

    Attributes:
        numbers: of the rerankers, in the order in which they were added.
        choice: the cross-validated choice with them, int (S,).
    """

    numbers: list[int]
    choice: np.ndarray


def select(scores: np.ndarray, statistics: np.ndarray) -> Selection:
    """Add rerankers to the best one alone, as long as cross-validated BLEU rises by `MIN_GAIN`.

    Args:
        scores: (S, n, M).
        statistics: (S, n, 10).
    """

    def bleu(choice: np.ndarray) -> float:
        return float(corpus_bleu(chosen(statistics, choice).sum(0)))

    alone = [scores[..., number].argmax(1) for number in range(scores.shape[-1])]
    best = int(np.argmax([bleu(choice) for choice in alone]))
    selection = Selection([best], alone[best])
    while rest := [number for number in range(scores.shape[-1]) if number not in selection.numbers]:
        larger = [[*selection.numbers, number] for number in rest]
        choices = [cross_validated_choice(scores[..., each], statistics) for each in larger]
        found = [bleu(choice) for choice in choices]
        best = int(np.argmax(found))
        if found[best] < bleu(selection.choice) + MIN_GAIN:
            break
        selection = Selection(larger[best], choices[best])
    return selection
