"""A pass over a long text in chunks: parallel, in order, and resumable."""

import contextlib
import json
import multiprocessing
import multiprocessing.util
import os
import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from os import PathLike
from typing import Any

from difformer_plugin.errors import UserError
from difformer_plugin.storage.files import atomic_text

CHUNK = 500  # entries that a worker gets at a time
AHEAD = 4  # chunks read ahead per worker; bounds the memory
SAVE_SECONDS = 2.0


def cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def run_pass(
    folder: str | PathLike,
    name: str,
    entries: Iterable[Any],
    function: Callable[[list[Any]], tuple[list[tuple[str, ...]], Counter]],
    outputs: Callable[[tuple[str, ...], int], dict[str, str]],
    workers: int,
    progress: bool | None = True,
    chunk: int | None = None,
    total: int | None = None,
) -> Counter:
    """Apply a function to all entries, and write its rows to files in the order of the entries.

    An interrupted pass resumes after its last saved chunk, with the same result, whatever `chunk`
    is then. Memory does not grow with the number of entries.

    Args:
        folder: where the outputs are written; `name.json` in it holds the state of the pass.
        name: of the pass.
        entries: the input; must be the same on each start.
        function: from a list of entries to (rows, counts); picklable. A row is a tuple of lines.
            Counts are summed over all chunks.
        outputs: from (row, number of rows before it) to {file name: line}.
        workers: number of processes; with 1, all work is done in this process.
        progress: show a progress bar; None: if standard error is a terminal.
        chunk: number of entries that a worker gets at a time; None: CHUNK.
        total: number of entries, for the progress bar; None if unknown.
    Returns:
        the summed counts, with the number of entries as `lines` and of rows as `rows`.
    Raises:
        UserError: a worker was killed; and what `function` raises.
    """
    state = _load(os.path.join(folder, f"{name}.json"))
    if state.get("done"):
        return Counter(state["counts"])
    counts, sizes = Counter(state["counts"]), state["sizes"]
    chunks = _chunks(entries, chunk or CHUNK, skip=counts["lines"])
    with contextlib.ExitStack() as stack:
        files = _Files(stack, folder, sizes)
        bar = stack.enter_context(_bar(name, counts["lines"], total, progress))
        results = stack.enter_context(contextlib.closing(_map(function, chunks, workers)))
        saved = time.monotonic()
        for length, (rows, found) in results:
            for row in rows:
                files.write(outputs(row, counts["rows"]))
                counts["rows"] += 1
            counts.update(found)
            counts["lines"] += length
            bar.update(length)
            if time.monotonic() - saved > SAVE_SECONDS:
                _save(folder, name, state | {"counts": counts, "sizes": files.flush()})
                saved = time.monotonic()
        state |= {"counts": counts, "sizes": files.flush(), "done": True}
    _save(folder, name, state)
    return counts


class _Files:
    """Output files, opened when first needed; existing ones are truncated to their saved size."""

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
        """Force the files to the disk, and return their sizes in bytes."""
        for file in self.files.values():
            file.flush()
            os.fsync(file.fileno())
        return {name: file.tell() for name, file in self.files.items()}


def _load(path):
    if os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    return {"counts": {}, "sizes": {}}


def _save(folder, name, state):
    with atomic_text(os.path.join(folder, f"{name}.json")) as file:
        json.dump(state, file)


def _bar(name, done, total, progress):
    from tqdm import tqdm

    disable = None if progress is None else not progress
    settings = {"unit": " lines", "unit_scale": True, "disable": disable}
    return tqdm(desc=name, initial=done, total=total, **settings)


def _chunks(entries, size, skip):
    """Yield lists of `size` entries, without the first `skip` entries."""
    entries = islice(entries, skip, None)
    while chunk := list(islice(entries, size)):
        yield chunk


def _map(function, chunks, workers):
    """Yield (length, result) of each chunk in order, with at most `workers * AHEAD` in progress."""
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
            "a worker was killed, perhaps because memory ran out: run the same command again with "
            "fewer --workers; it resumes from here"
        ) from None
    finally:
        executor.shutdown(cancel_futures=True)


@contextlib.contextmanager
def tied_children() -> Iterator[None]:
    """Within the block, processes forked by multiprocessing ignore Ctrl-C and end with this one.

    Otherwise the processes of a pool print tracebacks, or wait for ever if this one is killed.
    """
    parent, token = os.getpid(), _Token()
    multiprocessing.util.register_after_fork(token, lambda _: _tie(parent))
    yield  # the registration lasts as long as the token


class _Token:
    """An object to register with, since `register_after_fork` needs weak references."""


def _tie(parent):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_follow, args=(parent,), daemon=True).start()


def _follow(parent):
    """End this process when its parent has ended."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
