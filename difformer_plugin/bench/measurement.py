"""Measure time in turn with other rows, and memory in a process of its own."""

import contextlib
import ctypes
import multiprocessing
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

STATUS = Path("/proc/self/status")
PEAK_RESET = Path("/proc/self/clear_refs")  # writing 5 resets the peak resident memory, VmHWM
KIB_PER_MIB = 1024
# glibc returns blocks above this threshold to the system as soon as they are freed.
M_MMAP_THRESHOLD, MMAP_THRESHOLD = -3, 2**17


def interleave(names: list[str], repetitions: int, batches: int) -> list[tuple[int, int, str]]:
    """The order of a run: all rows process one batch, then all rows process the next.

    Other load on the machine therefore affects all rows alike. At each batch another row comes
    first.

    Returns:
        (repetition, batch, row name), each combination once.
    """
    order = []
    for turn in range(repetitions * batches):
        first = turn % len(names)
        rotated = names[first:] + names[:first]
        order += [(*divmod(turn, batches), name) for name in rotated]
    return order


def timed(function: Callable[[], Any], device: torch.device) -> tuple[float, Any]:
    """Call a function; returns its wall time in seconds and its result."""
    synchronise(device)
    started = time.perf_counter()
    result = function()
    synchronise(device)
    return time.perf_counter() - started, result


def synchronise(device: torch.device) -> None:
    """Wait until a GPU has finished; a CPU needs no waiting."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def throughput(
    times: Sequence[Sequence[float]],
    baseline: Sequence[Sequence[float]],
    sentences: int,
    tokens: int,
) -> dict[str, Any]:
    """The speed of a row from the times of its batches.

    Args:
        times: seconds, (repetitions, batches).
        baseline: the times of the row that others are compared with.
        sentences: number in one repetition.
        tokens: number in one repetition.
    Returns:
        a dictionary: `sentences_per_second` and `tokens_per_second` (of the median repetition),
        `best_tokens_per_second`, `ratio` (the median over repetitions of the baseline's time
        divided by the row's time), `p50_ms` and `p95_ms` (percentiles over all batches), and
        `seconds` (the times).
    """
    times, baseline = np.asarray(times), np.asarray(baseline)
    totals = times.sum(1)
    p50, p95 = np.percentile(1000 * times, [50, 95])
    return {
        "sentences_per_second": sentences / float(np.median(totals)),
        "tokens_per_second": tokens / float(np.median(totals)),
        "best_tokens_per_second": tokens / float(totals.min()),
        "ratio": float(np.median(baseline.sum(1) / totals)),
        "p50_ms": float(p50),
        "p95_ms": float(p95),
        "seconds": times.tolist(),
    }


def peak_memory(
    function: Callable[[], Any], warm_up: Callable[[], Any], device: torch.device, threads: int
) -> float | None:
    """The peak rise of memory while a function runs, in MiB.

    On a GPU, it is the memory that torch allocates. On a CPU, it is the resident memory of a
    process that is forked for the measurement, without mapped files such as the code of libraries.
    That process could not start threads of its own if this one had used threads before.

    Args:
        warm_up: called first; memory that it allocates and keeps (weights in another precision,
            an optimiser's state) does not count.
        threads: of the forked process.
    Returns:
        the rise, or None if the system does not report memory or the process failed.
    """
    if device.type == "cuda":
        warm_up()
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        function()
        torch.cuda.synchronize(device)
        return (torch.cuda.max_memory_allocated(device) - before) / 2**20
    if not STATUS.is_file():
        return None
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send_rise, args=(sender, function, warm_up, threads))
    process.start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError:
        return None
    finally:
        process.join()


def _send_rise(sender, function, warm_up, threads):
    """Measure in this process the peak rise of resident memory, and send it in MiB."""
    with contextlib.suppress(Exception), sender:  # the timed pass will report the same error
        torch.set_num_threads(threads)
        library = ctypes.CDLL(None)
        if hasattr(library, "mallopt"):  # glibc only
            # otherwise freed memory may be kept while more is allocated
            library.mallopt(M_MMAP_THRESHOLD, MMAP_THRESHOLD)
        warm_up()
        if hasattr(library, "malloc_trim"):  # so that reuse of freed memory counts
            library.malloc_trim(0)
        before = _resident()
        PEAK_RESET.write_text("5")
        function()
        after = _resident()
        files = after["RssFile"] - before["RssFile"]
        sender.send((after["VmHWM"] - before["VmRSS"] - files) / KIB_PER_MIB)


def _resident():
    """The resident memory of this process by kind, in KiB."""
    lines = (line.split() for line in STATUS.read_text().splitlines())
    return {
        words[0][:-1]: int(words[1]) for words in lines if words[0][:-1].startswith(("Vm", "Rss"))
    }
