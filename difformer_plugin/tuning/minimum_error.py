"""Minimum error rate training: the weights whose choice of candidates has the highest BLEU.

Corpus BLEU is a step function of the weights. Along a line it is searched exactly: the winner of a
sentence changes only at the corners of the upper envelope of its candidates' scores, which are
linear functions of the step. Lines are the coordinates and random directions, from several starts.

Source:
    Och (2003), Minimum Error Rate Training in Statistical Machine Translation.

Shapes: S sentences, n candidates each, M scores of a candidate. Statistics of BLEU are those of
sacreBLEU: 4 numbers of matching n-grams, 4 of n-grams, the lengths of hypothesis and reference.
"""

from collections.abc import Iterator

import numpy as np

RANDOM_STARTS = 4
RANDOM_DIRECTIONS = 4  # of each round
MAX_ROUNDS = 20
MIN_GAIN = 1e-6  # BLEU that a step must gain
FOLDS = 5
LOWEST = -1e4  # scores are clipped here: a length without a class has the lowest number there is


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


def line_search(
    scores: np.ndarray, statistics: np.ndarray, weights: np.ndarray, direction: np.ndarray
) -> tuple[float, float]:
    """The step with the highest BLEU among all real numbers.

    Returns:
        the step gamma, in the middle of the widest of the best intervals, and BLEU with
        weights + gamma direction.
    """
    (_, start), *changes = _changes(scores @ weights, scores @ direction, statistics)
    steps = np.concatenate([steps for steps, _ in changes])
    deltas = np.concatenate([delta for _, delta in changes])
    if not len(steps):  # all steps choose the same
        return 0.0, float(corpus_bleu(start.sum(0)))
    order = steps.argsort(kind="stable")
    steps, deltas = steps[order], deltas[order]
    totals = np.vstack([start.sum(0), start.sum(0) + deltas.cumsum(0)])
    found = corpus_bleu(totals)
    # One interval before, between and after the corners.
    ends = np.concatenate([[steps[0] - 2], steps, [steps[-1] + 2]])
    widths = np.diff(ends)
    tiny = 1e-9 * np.maximum(1, np.abs(ends[1:]))
    found[widths <= tiny] = -1
    best = np.flatnonzero(found >= found.max() - 1e-12)
    widest = best[widths[best].argmax()]
    return float(ends[widest] + ends[widest + 1]) / 2, float(found[widest])


def _changes(
    offsets: np.ndarray, slopes: np.ndarray, statistics: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Follow the upper envelopes of all sentences from left to right.

    Args:
        offsets, slopes: (S, n), a candidate's score at step gamma is offset + gamma slope.
    Yields:
        at first no steps, and the winners' statistics (S, 10) at minus infinity; then corners: the
        steps (m,) at which winners change, and how their statistics change, (m, 10).
    """
    rows = np.arange(len(slopes))
    lowest = slopes == slopes.min(1, keepdims=True)
    winner = np.where(lowest, offsets, -np.inf).argmax(1)
    yield np.empty(0), statistics[rows, winner]
    while len(rows):
        rise = slopes[rows] - slopes[rows, winner][:, None]
        behind = offsets[rows, winner][:, None] - offsets[rows]
        with np.errstate(divide="ignore", invalid="ignore"):
            corner = np.where(rise > 0, behind / rise, np.inf)
        step = corner.min(1)
        steepest = np.where(corner <= step[:, None], rise, -np.inf).argmax(1)
        goes_on = np.isfinite(step)
        rows, winner, steepest = rows[goes_on], winner[goes_on], steepest[goes_on]
        yield step[goes_on], statistics[rows, steepest] - statistics[rows, winner]
        winner = steepest


def fit_weights(scores: np.ndarray, statistics: np.ndarray, seed: int = 1) -> np.ndarray:
    """Weights (M,) with the highest BLEU found, the largest of them 1 or -1.

    Args:
        scores: (S, n, M), higher being better.
        statistics: (S, n, 10).
        seed: of the random starts and directions.
    """
    scores = np.maximum(scores, LOWEST)
    scales = _spreads(scores)
    scaled, count = scores / scales, scores.shape[-1]
    random = np.random.default_rng(seed)
    starts = [*np.eye(count), np.ones(count), *random.normal(size=(RANDOM_STARTS, count))]
    best, best_bleu = starts[0], -1.0
    for weights in starts:
        bleu = bleu_of_choice(scaled, statistics, weights)
        for _ in range(MAX_ROUNDS):
            before = bleu
            for direction in [*np.eye(count), *random.normal(size=(RANDOM_DIRECTIONS, count))]:
                step, found = line_search(scaled, statistics, weights, direction)
                if found > bleu + MIN_GAIN:
                    weights, bleu = weights + step * direction, found
                    weights = weights / np.abs(weights).max()
            if bleu - before <= MIN_GAIN:
                break
        if bleu > best_bleu + MIN_GAIN:
            best, best_bleu = weights, bleu
    best = best / scales
    return best / np.abs(best).max()


def _spreads(scores: np.ndarray) -> np.ndarray:
    """How much each score varies between a sentence's candidates, (M,): a median, above 0."""
    spread = scores.std(1)
    found = [np.median(own[own > 0]) if (own > 0).any() else 1.0 for own in spread.T]
    return np.array(found)


def cross_validated_choice(
    scores: np.ndarray, statistics: np.ndarray, seed: int = 1, folds: int = FOLDS
) -> np.ndarray:
    """The choice in each fold of the sentences by weights fitted to the other folds, int (S,).

    Its BLEU estimates that of fitted weights on other data.
    """
    numbers, choice = np.arange(len(scores)) % folds, np.zeros(len(scores), int)
    for fold in range(folds):
        own = numbers == fold
        weights = fit_weights(scores[~own], statistics[~own], seed)
        choice[own] = winners(np.maximum(scores[own], LOWEST), weights)
    return choice
