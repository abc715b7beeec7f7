"""A pass over a long text in chunks: on all cores, in order, and taken up where it was stopped."""

import contextlib
import json
import multiprocessing
import multiprocessing.util
import os
import signal
import threading
import time
from collections import Counter, deque
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice

from difformer_plugin.errors import UserError
from difformer_plugin.storage.files import atomic_text

CHUNK = 500  # entries that go to a worker at a time
AHEAD = 4  # chunks read ahead for each worker: what bounds the memory
SAVE_SECONDS = 2.0


def cores():
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def run_pass(folder, name, entries, function, outputs, workers, progress=True):
    """Write what `function` makes of the entries to files, in the entries' order.

    Started again after it was stopped, a pass goes on behind its last saved chunk; the result is
    the same. Memory does not grow with the number of entries.

    Args:
        folder: where the outputs are written and `name.json` says how far the pass is.
        entries: what to read; the same ones at each start.
        function: picklable: a list of entries -> (rows, counts). A row is a tuple with a line for
            each output; counts are added up.
        outputs: function: (row, number of rows before it) -> {file name: line}.
        workers: processes; 1 does all in this one.
    Returns:
        the sums of the counts, with `lines`, the number of entries, and `rows`.
    """
    state = _load(os.path.join(folder, f"{name}.json"))
    if state.get("done"):
        return Counter(state["counts"])
    counts, sizes = Counter(state["counts"]), state["sizes"]
    chunks = _chunks(entries, skip=state["chunks"])
    with contextlib.ExitStack() as stack:
        files = _Files(stack, folder, sizes)
        bar = stack.enter_context(_bar(name, counts["lines"], progress))
        results = stack.enter_context(contextlib.closing(_map(function, chunks, workers)))
        saved = time.monotonic()
        for length, (rows, found) in results:
            for row in rows:
                files.write(outputs(row, counts["rows"]))
                counts["rows"] += 1
            counts.update(found)
            counts["lines"] += length
            state["chunks"] += 1
            bar.update(length)
            if time.monotonic() - saved > SAVE_SECONDS:
                _save(folder, name, state | {"counts": counts, "sizes": files.flush()})
                saved = time.monotonic()
        state |= {"counts": counts, "sizes": files.flush(), "done": True}
    _save(folder, name, state)
    return counts


class _Files:
    """Files opened as they are needed, cut to the size that was saved for them."""

    def __init__(self, stack, folder, sizes):
        self.stack, self.folder, self.files = stack, folder, {}
        for name, size in sizes.items():
            os.truncate(os.path.join(folder, name), size)
            self._open(name, "ab")

    def _open(self, name, mode):
        path = os.path.join(self.folder, name)
        self.files[name] = self.stack.enter_context(open(path, mode))  # noqa: SIM115

    def write(self, lines):
        for name, line in lines.items():
            if name not in self.files:
                self._open(name, "wb")
            self.files[name].write(line.encode("utf-8") + b"\n")

    def flush(self):
        """Sizes of the files, which are then on the disk."""
        for file in self.files.values():
            file.flush()
            os.fsync(file.fileno())
        return {name: file.tell() for name, file in self.files.items()}


def _load(path):
    if os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    return {"chunks": 0, "counts": {}, "sizes": {}}


def _save(folder, name, state):
    with atomic_text(os.path.join(folder, f"{name}.json")) as file:
        json.dump(state, file)


def _bar(name, done, progress):
    from tqdm import tqdm

    return tqdm(desc=name, initial=done, unit=" lines", unit_scale=True, disable=not progress)


def _chunks(entries, skip):
    """Lists of CHUNK entries, without the first `skip` of them."""
    entries = iter(entries)
    for _ in range(skip):
        for _ in islice(entries, CHUNK):
            pass
    while chunk := list(islice(entries, CHUNK)):
        yield chunk


def _map(function, chunks, workers):
    """(length, result) of each chunk, in order; `workers * AHEAD` chunks are under way at most."""
    if workers == 1:
        for chunk in chunks:
            yield len(chunk), function(chunk)
        return
    executor = ProcessPoolExecutor(workers, multiprocessing.get_context("fork"))
    waiting = deque()
    try:
        with tied_children():
            for chunk in chunks:
                waiting.append((len(chunk), executor.submit(function, chunk)))
                if len(waiting) > workers * AHEAD:
                    length, future = waiting.popleft()
                    yield length, future.result()
            for length, future in waiting:
                yield length, future.result()
    except BrokenProcessPool:
        raise UserError(
            "a worker was killed, perhaps for want of memory: run the same command again, which "
            "goes on from here, with fewer --workers"
        ) from None
    finally:
        executor.shutdown(cancel_futures=True)


@contextlib.contextmanager
def tied_children():
    """What multiprocessing forks in this block leaves Ctrl-C to this process, and ends with it.

    A pool's processes would otherwise print tracebacks, or wait for ever where this one is killed.
    """
    parent, token = os.getpid(), _Token()
    multiprocessing.util.register_after_fork(token, lambda _: _tie(parent))
    yield  # the registration lasts as long as the token


class _Token:
    pass


def _tie(parent):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_follow, args=(parent,), daemon=True).start()


def _follow(parent):
    """End this process when its parent is no more."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
