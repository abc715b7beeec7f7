"""How the cost of decoding grows with K, candidates, batch size and sentence length."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from difformer_plugin.bench import workload
from difformer_plugin.bench.decode import DecodeBench, Progress
from difformer_plugin.bench.decode_rows import Setting

STEPS, BEAMS, BATCH_SIZES = (1, 5, 10, 20), ("1", "10", "21"), (1, 5, 10)
ROW = "engine"


def variations(
    steps: Sequence[int], beams: Sequence[tuple[int, int]], batch_sizes: Sequence[int]
) -> list[tuple[str, int, Setting]]:
    """Settings that vary one factor at a time.

    The other factors have their base values: the first of `steps` and `beams`, and the last of
    `batch_sizes`.

    Args:
        steps: values of K.
        beams: values of (b1, b2).
        batch_sizes: numbers of sentences in a batch.
    Returns:
        (factor, value, setting) of each measurement, except for those of the length.
    """
    base = Setting(steps[0], beams[0], batch_sizes[-1])
    return [
        *(("K", k, base._replace(steps=k)) for k in steps),
        *(("candidates", b[0] * b[1], base._replace(beams=b)) for b in beams),
        *(("batch", size, base._replace(batch_size=size)) for size in batch_sizes),
    ]


def measure(
    bench: DecodeBench,
    steps: Sequence[int],
    beams: Sequence[tuple[int, int]],
    batch_sizes: Sequence[int],
    progress: Progress = iter,
) -> list[dict[str, Any]]:
    """The cost of a sentence by each factor, length included.

    Args:
        steps, beams, batch_sizes: see `variations`.
        progress: wraps the list of measurements.
    Returns:
        a dictionary for each measurement: `factor`, `value`, `title`, `ms_per_sentence`, and
        `growth` and `factor_growth`, the cost and the value divided by the first ones of the
        factor.
    """
    lengths = np.asarray(bench.systems.diffusion.dataset.tgt_sizes)
    planned: list[tuple] = [
        (*plan, bench.numbers) for plan in variations(steps, beams, batch_sizes)
    ]
    base = Setting(steps[0], beams[0], batch_sizes[-1])
    for numbers in workload.around_quantiles(lengths, len(bench.numbers)):
        planned.append(("length", round(float(lengths[numbers].mean()), 1), base, numbers))
    rows = []
    for factor, value, setting, numbers in progress(planned):
        times, _ = bench.time(setting, [ROW], numbers)
        best = min(map(sum, times[ROW])) / len(numbers)
        first = next((row for row in rows if row["factor"] == factor), None)
        rows.append(
            {
                "factor": factor,
                "value": value,
                "title": setting.title,
                "ms_per_sentence": 1000 * best,
                "growth": 1000 * best / first["ms_per_sentence"] if first else 1.0,
                "factor_growth": value / first["value"] if first else 1.0,
            }
        )
    return rows
