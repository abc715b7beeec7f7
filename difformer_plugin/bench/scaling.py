"""How the cost of the engine grows with K, with candidates, with length, and with the batch."""

import numpy as np

from difformer_plugin.bench import workload
from difformer_plugin.bench.systems import Setting

STEPS, BEAMS, BATCHES = (1, 5, 10, 20), ("1", "10", "21"), (1, 5, 10)
ROW = "engine"


def variations(steps, beams, batches):
    """What is varied, one thing at a time from the first values on.

    Args:
        steps, beams, batches: values of K, of (b1, b2) and of the batch size.
    Returns:
        a list of (factor, value, Setting), without the length.
    """
    base = Setting(steps[0], beams[0], batches[-1])
    return [
        *(("K", k, base._replace(steps=k)) for k in steps),
        *(("candidates", b[0] * b[1], base._replace(beams=b)) for b in beams),
        *(("batch", size, base._replace(batch_size=size)) for size in batches),
    ]


def measure(bench, steps, beams, batches, progress=iter):
    """The cost of a sentence in milliseconds by each factor.

    Args:
        bench: a DecodeBench.
    Returns:
        a list of dictionaries.
    """
    lengths = np.asarray(bench.systems.diffusion.dataset.tgt_sizes)
    planned = [(*plan, bench.numbers) for plan in variations(steps, beams, batches)]
    base = Setting(steps[0], beams[0], batches[-1])
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
