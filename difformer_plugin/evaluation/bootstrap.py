"""Bootstrap resampling of a test set: percentile intervals, and a paired test of two systems."""

import os
from collections.abc import Sequence
from typing import Any

LEVEL = 0.95  # of the intervals


def resample(
    scorer: Any, systems: Sequence[Sequence[str]], references: Sequence[str], samples: int
) -> dict[str, Any]:
    """Score systems on the test set and on resampled ones.

    The same resampled test sets serve all systems, and are those of sacreBLEU's own paired test,
    whose seed is SACREBLEU_SEED (default: 12345). An interval reaches from the 2.5th to the 97.5th
    percentile of the resampled scores, so that it never leaves the range of the metric.

    Source:
        Efron and Tibshirani (1993), "An Introduction to the Bootstrap", Sec. 13.3 (percentile
        intervals); Koehn (2004), "Statistical Significance Tests for Machine Translation
        Evaluation" (the test).
    Args:
        scorer: a metric of sacreBLEU.
        systems: the translations of one system, or of a system and its baseline.
        samples: number of resampled test sets.
    Returns:
        a dictionary: `scores`, `intervals`, `signature` and, for two systems, `p_value`: the
        probability of a difference at least as large if both systems were equally good.
    """
    import numpy as np
    from sacrebleu.significance import _bootstrap_resample, _compute_p_value

    statistics = [scorer._extract_corpus_statistics(system, [references]) for system in systems]
    scores = [float(scorer._aggregate_and_compute(own).score) for own in statistics]
    resampled = []
    for own in statistics:
        _, found = _bootstrap_resample(own, scorer, samples)
        resampled.append(np.array([score.score for score in found]))
    signature = scorer.get_signature()
    signature.update("seed", os.environ.get("SACREBLEU_SEED", "12345").lower())
    signature.update("bs", samples)
    tails = [50 * (1 - LEVEL), 50 * (1 + LEVEL)]
    row: dict[str, Any] = {
        "scores": scores,
        "intervals": [tuple(np.percentile(own, tails).tolist()) for own in resampled],
        "signature": signature.format(),
    }
    if len(systems) > 1:
        differences = np.abs(resampled[0] - resampled[1])
        observed = abs(scores[0] - scores[1])
        # sacreBLEU counts differences above the observed one; equal outputs have none
        equal = list(systems[0]) == list(systems[1])
        row["p_value"] = (
            1.0 if equal else _compute_p_value(differences - differences.mean(), observed)
        )
    return row
