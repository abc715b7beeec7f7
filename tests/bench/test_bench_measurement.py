import multiprocessing
import statistics
from collections import Counter
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest
import torch

from difformer_plugin.bench.measurement import STATUS, interleave, peak_memory, throughput

CPU = torch.device("cpu")
linux = pytest.mark.skipif(not STATUS.is_file(), reason="no /proc on this system")


def test_every_row_processes_every_batch_once_per_repetition():
    names = ["a", "b", "c"]
    order = interleave(names, 2, 4)
    assert sorted(order) == [(r, b, n) for r in range(2) for b in range(4) for n in names]


def test_rows_alternate_and_each_comes_first_equally_often():
    order = interleave(["a", "b", "c"], 3, 2)
    moments = [order[i : i + 3] for i in range(0, len(order), 3)]
    assert [{step[:2] for step in moment} for moment in moments] == [
        {(r, b)} for r in range(3) for b in range(2)
    ]
    assert Counter(moment[0][2] for moment in moments) == {"a": 2, "b": 2, "c": 2}


def test_throughput_is_that_of_the_median_repetition():
    times = [[1.0, 3.0], [1.0, 1.0], [5.0, 5.0]]
    found = throughput(times, times, sentences=8, tokens=100)
    assert found["sentences_per_second"] == 2 and found["tokens_per_second"] == 25
    assert found["best_tokens_per_second"] == 50
    assert found["ratio"] == 1


def test_the_ratio_is_taken_within_repetitions():
    machine = [1.0, 7.0, 1.0, 3.0, 2.0]
    first, row = [[4 * m] for m in machine], [[2 * m] for m in machine]
    assert throughput(row, first, 1, 1)["ratio"] == 2


def test_latencies_are_percentiles_over_all_batches():
    times = [[0.001 * i for i in range(1, 101)], [0.001 * i for i in range(101, 202)]]
    times[1] = times[1][:100]
    found = throughput(times, times, 1, 1)
    flat = [1000 * t for row in times for t in row]
    assert found["p50_ms"] == pytest.approx(statistics.median(flat))
    assert found["p95_ms"] == pytest.approx(
        statistics.quantiles(flat, n=100, method="inclusive")[94]
    )
    assert np.shape(found["seconds"]) == (2, 100)


def one_after_another(mebibytes):
    """The measured peak of three tensors of this size, each freed before the next."""

    def function():
        for _ in range(3):
            torch.ones(mebibytes * 2**18)  # float32

    return peak_memory(function, lambda: torch.ones(9), CPU, 1)


@linux
def test_memory_is_the_most_held_at_once():
    """In a fresh process, as in the command: here tensors could fill holes left in the heap."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        found = list(pool.map(one_after_another, [24, 96]))
    assert found == pytest.approx([24, 96], abs=3)


@linux
def test_memory_of_the_warm_up_does_not_count():
    kept = []

    def function():
        kept.append(torch.ones(2**22))

    found = peak_memory(function, lambda: kept.append(torch.ones(2**24)), CPU, 1)
    assert found == pytest.approx(16, abs=3)
    assert not kept  # everything happened in another process


@linux
def test_a_failed_process_gives_no_memory():
    def function():
        raise MemoryError

    assert peak_memory(function, lambda: None, CPU, 1) is None


def test_memory_on_a_gpu(cuda):
    def function():
        torch.ones(2**22, device=cuda)

    found = peak_memory(function, lambda: torch.ones(9, device=cuda), cuda, 1)
    assert found == pytest.approx(16, abs=0.1)
