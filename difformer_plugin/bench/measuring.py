"""Time and memory of things that are to be compared: in turn, and each in a process of its own."""

import contextlib
import ctypes
import multiprocessing
import time
from pathlib import Path

import numpy as np
import torch

STATUS = Path("/proc/self/status")
HIGH_WATER_RESET = Path("/proc/self/clear_refs")
KIB_PER_MIB = 1024
M_MMAP_THRESHOLD, MMAP_THRESHOLD = -3, 2**17  # glibc's: larger blocks go back when they are freed


def in_turn(names, repetitions, batches):
    """Which row does which batch when: all rows a batch, then all rows the next one.

    So whatever else a machine does falls on all rows alike. Each time another row comes first.

    Returns:
        a list of (repetition, batch, name), each once.
    """
    order = []
    for turn in range(repetitions * batches):
        first = turn % len(names)
        rotated = names[first:] + names[:first]
        order += [(*divmod(turn, batches), name) for name in rotated]
    return order


def seconds(function, device):
    """The wall time of a call, and what it returned."""
    synchronise(device)
    started = time.perf_counter()
    result = function()
    synchronise(device)
    return time.perf_counter() - started, result


def synchronise(device):
    """Wait for a GPU to be done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def speeds(times, first, sentences, tokens):
    """A row's speed, from the times of its batches.

    Args:
        times: seconds (repetitions, batches).
        first: those of the row that others are compared with.
        sentences, tokens: of one repetition.
    Returns:
        a dictionary: `ratio` is the median over repetitions of how many times as fast as the first
        row it was in the same repetition, the speeds are those of the median repetition, and the
        latencies are over all batches, in milliseconds.
    """
    times, first = np.asarray(times), np.asarray(first)
    totals = times.sum(1)
    p50, p95 = np.percentile(1000 * times, [50, 95])
    return {
        "sentences_per_second": sentences / float(np.median(totals)),
        "tokens_per_second": tokens / float(np.median(totals)),
        "best_tokens_per_second": tokens / float(totals.min()),
        "ratio": float(np.median(first.sum(1) / totals)),
        "p50_ms": float(p50),
        "p95_ms": float(p95),
        "seconds": times.tolist(),
    }


def peak_memory(function, warm_up, device, threads):
    """How far memory rises above where it stood, weights included, while a function runs; MiB.

    On a GPU what torch has allocated. On a CPU the resident memory of a process that is forked for
    it, which gives back at once what is freed. What it maps of files (the code of libraries) is not
    counted. No threads may have been used before: the forked process could not start its own.

    Args:
        warm_up: called first; what it makes and keeps (a copy of the weights in another
            precision, the state of an optimiser) is not counted.
        threads: of the forked process.
    Returns:
        None where this system does not tell, or the process did not live to tell.
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
    process = context.Process(target=_rise, args=(sender, function, warm_up, threads))
    process.start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError:
        return None
    finally:
        process.join()


def _rise(sender, function, warm_up, threads):
    """Send by how many MiB the resident memory of this process rises at most."""
    with contextlib.suppress(Exception), sender:  # the timed pass will say what is wrong
        torch.set_num_threads(threads)
        library = ctypes.CDLL(None)
        if hasattr(library, "mallopt"):  # glibc's
            # else it may keep what is freed, and take more beside it
            library.mallopt(M_MMAP_THRESHOLD, MMAP_THRESHOLD)
        warm_up()
        if hasattr(library, "malloc_trim"):  # what was free before, and is taken again, counts
            library.malloc_trim(0)
        before = _resident()
        HIGH_WATER_RESET.write_text("5")
        function()
        after = _resident()
        files = after["RssFile"] - before["RssFile"]
        sender.send((after["VmHWM"] - before["VmRSS"] - files) / KIB_PER_MIB)


def _resident():
    """The counts of resident memory of this process, KiB."""
    lines = (line.split() for line in STATUS.read_text().splitlines())
    return {
        words[0][:-1]: int(words[1]) for words in lines if words[0][:-1].startswith(("Vm", "Rss"))
    }
