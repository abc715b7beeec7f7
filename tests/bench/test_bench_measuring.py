import multiprocessing
import statistics
from collections import Counter
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest
import torch

from difformer_plugin.bench.measuring import STATUS, in_turn, peak_memory, speeds

CPU = torch.device("cpu")
linux = pytest.mark.skipif(not STATUS.is_file(), reason="no /proc on this system")


def test_every_row_does_every_batch_once_a_repetition():
    names = ["a", "b", "c"]
    order = in_turn(names, 2, 4)
    assert sorted(order) == [(r, b, n) for r in range(2) for b in range(4) for n in names]


def test_rows_share_each_moment_and_take_turns_at_coming_first():
    order = in_turn(["a", "b", "c"], 3, 2)
    moments = [order[i : i + 3] for i in range(0, len(order), 3)]
    assert [{step[:2] for step in moment} for moment in moments] == [
        {(r, b)} for r in range(3) for b in range(2)
    ]
    assert Counter(moment[0][2] for moment in moments) == {"a": 2, "b": 2, "c": 2}


def test_speeds_are_those_of_the_median_repetition():
    times = [[1.0, 3.0], [1.0, 1.0], [5.0, 5.0]]
    found = speeds(times, times, sentences=8, tokens=100)
    assert found["sentences_per_second"] == 2 and found["tokens_per_second"] == 25
    assert found["best_tokens_per_second"] == 50
    assert found["ratio"] == 1


def test_a_ratio_is_taken_within_repetitions_of_which_a_slow_one_slows_all():
    machine = [1.0, 7.0, 1.0, 3.0, 2.0]
    first, row = [[4 * m] for m in machine], [[2 * m] for m in machine]
    assert speeds(row, first, 1, 1)["ratio"] == 2


def test_latencies_are_percentiles_over_all_batches():
    times = [[0.001 * i for i in range(1, 101)], [0.001 * i for i in range(101, 202)]]
    times[1] = times[1][:100]
    found = speeds(times, times, 1, 1)
    flat = [1000 * t for row in times for t in row]
    assert found["p50_ms"] == pytest.approx(statistics.median(flat))
    assert found["p95_ms"] == pytest.approx(
        statistics.quantiles(flat, n=100, method="inclusive")[94]
    )
    assert np.shape(found["seconds"]) == (2, 100)


def one_after_another(mebibytes):
    """The peak of three tensors of this size, of which each is freed before the next."""

    def function():
        for _ in range(3):
            torch.ones(mebibytes * 2**18)  # float32

    return peak_memory(function, lambda: torch.ones(9), CPU, 1)


@linux
def test_memory_is_what_was_held_at_once():
    """In a process like the command's: tests leave holes in the heap, which tensors fill."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        found = list(pool.map(one_after_another, [24, 96]))
    assert found == pytest.approx([24, 96], abs=3)


@linux
def test_memory_that_was_there_before_does_not_count():
    kept = []

    def function():
        kept.append(torch.ones(2**22))

    found = peak_memory(function, lambda: kept.append(torch.ones(2**24)), CPU, 1)
    assert found == pytest.approx(16, abs=3)
    assert not kept  # it was another process that did all this


@linux
def test_a_process_that_fails_tells_nothing():
    def function():
        raise MemoryError

    assert peak_memory(function, lambda: None, CPU, 1) is None


def test_memory_on_a_gpu(cuda):
    def function():
        torch.ones(2**22, device=cuda)

    found = peak_memory(function, lambda: torch.ones(9, device=cuda), cuda, 1)
    assert found == pytest.approx(16, abs=0.1)
