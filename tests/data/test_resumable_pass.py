"""Resumable pass: the same files for any number of workers and after any kill."""

import multiprocessing
import os
import random
import signal
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from difformer_plugin.data import resumable_pass
from difformer_plugin.errors import UserError


@dataclass(frozen=True)
class Double:
    """Rows (n, 2n) for the numbers that are not divisible by 7."""

    pause: float = 0.0
    fail_at: int | None = None
    die: bool = False

    def __call__(self, entries):
        time.sleep(self.pause)
        if self.fail_at in entries:
            if self.die:
                os.kill(os.getpid(), signal.SIGKILL)
            raise UserError(f"number {self.fail_at}")
        rows = [(str(n), str(2 * n)) for n in entries if n % 7]
        return rows, Counter(sevens=sum(n % 7 == 0 for n in entries))


def outputs(row, before):
    """Every fifth row goes to separate files."""
    kind = "fifth" if (before + 1) % 5 == 0 else "rest"
    return {f"{kind}.one": row[0], f"{kind}.two": row[1]}


def go(folder, function=None, count=100, workers=1, chunk=None):
    function = function or Double()
    return resumable_pass.run_pass(
        folder, "pass", iter(range(count)), function, outputs, workers, False, chunk
    )


def contents(folder):
    return {p.name: p.read_text() for p in folder.iterdir() if p.suffix in (".one", ".two")}


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(resumable_pass, "CHUNK", 3)
    monkeypatch.setattr(resumable_pass, "SAVE_SECONDS", 0.0)


def expected(count=100):
    kept = [n for n in range(count) if n % 7]
    rows = {"fifth": kept[4::5], "rest": [n for i, n in enumerate(kept) if i % 5 != 4]}
    return {
        f"{kind}.{name}": "".join(f"{factor * n}\n" for n in numbers)
        for kind, numbers in rows.items()
        for name, factor in (("one", 1), ("two", 2))
    }


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_the_output_does_not_depend_on_the_number_of_workers(tmp_path, workers):
    counts = go(tmp_path, workers=workers)
    assert contents(tmp_path) == expected()
    assert counts == {"lines": 100, "rows": 85, "sevens": 15}


@pytest.mark.parametrize("workers", [1, 2])
def test_after_an_error_the_next_run_resumes(tmp_path, workers):
    with pytest.raises(UserError, match="number 50"):
        go(tmp_path, Double(fail_at=50), workers=workers)
    assert go(tmp_path, Double(fail_at=0)) == {"lines": 100, "rows": 85, "sevens": 15}
    assert contents(tmp_path) == expected()


@pytest.mark.parametrize("chunks", [(3, 8), (8, 3), (1, 200)])
def test_it_resumes_with_chunks_of_another_size(tmp_path, chunks):
    with pytest.raises(UserError, match="number 50"):
        go(tmp_path, Double(fail_at=50), chunk=chunks[0])
    counts = go(tmp_path, Double(fail_at=0), chunk=chunks[1])
    assert counts == {"lines": 100, "rows": 85, "sevens": 15}
    assert contents(tmp_path) == expected()


def test_a_finished_pass_is_not_repeated(tmp_path):
    first = go(tmp_path)
    assert go(tmp_path, Double(fail_at=0)) == first


def test_a_killed_worker_is_reported_in_one_line(tmp_path):
    with pytest.raises(UserError, match="a worker was killed.*run the same command again"):
        go(tmp_path, Double(fail_at=50, die=True), workers=2)
    go(tmp_path)
    assert contents(tmp_path) == expected()


@pytest.mark.parametrize("workers", [1, 2])
def test_kills_at_random_moments(tmp_path, workers):
    """After many kill -9, nothing is lost, duplicated or out of order."""
    draw, kills = random.Random(4), 0
    context = multiprocessing.get_context("fork")
    arguments = (tmp_path, Double(pause=0.004 * workers), 600, workers)
    while True:
        process = context.Process(target=go, args=arguments)
        process.start()
        # Longer and longer, so that a busy machine finishes in the end.
        process.join(draw.uniform(0.02, 0.2) * workers * (1 + kills / 20))
        if process.exitcode is not None:
            break
        process.kill()
        process.join()
        kills += 1
    assert process.exitcode == 0 and kills >= 3
    assert contents(tmp_path) == expected(600)


def start_and_tell(connection, folder):
    """A pass with two workers that never ends; their process ids go to the connection."""

    def watch(row, before):
        connection.send(row[0])
        return {}

    resumable_pass.run_pass(folder, "pass", iter(range(6)), whoami, watch, 2, False)


def whoami(entries):
    if entries[0] >= 3:
        time.sleep(60)
    return [(str(os.getpid()),)], Counter()


@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGTERM])
def test_workers_end_with_the_process_that_started_them(tmp_path, kill):
    ours, theirs = multiprocessing.Pipe()
    context = multiprocessing.get_context("fork")
    process = context.Process(target=start_and_tell, args=(theirs, tmp_path))
    process.start()
    worker = int(ours.recv())
    os.kill(worker, 0)  # it is alive
    os.kill(process.pid, kill)
    process.join()
    deadline = time.monotonic() + 20
    while is_running(worker):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def is_running(process):
    """Whether a process exists and is not a zombie."""
    try:
        return Path(f"/proc/{process}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


def test_output_after_the_last_save_is_truncated(tmp_path, monkeypatch):
    with pytest.raises(UserError):
        go(tmp_path, Double(fail_at=50))
    for path in tmp_path.glob("*.one"):
        path.write_bytes(path.read_bytes() + b"half a li")
    go(tmp_path)
    assert contents(tmp_path) == expected()


@pytest.mark.parametrize("workers", [1, 3])
def test_reading_ahead_is_bounded(tmp_path, workers):
    """However slow the workers are, so that memory does not grow with the corpus."""
    read = []

    def entries():
        for number in range(300):
            read.append(number)
            yield number

    ahead = []

    def watch(row, before):
        ahead.append(len(read) - int(row[0]))
        return outputs(row, before)

    resumable_pass.run_pass(tmp_path, "pass", entries(), Double(0.001), watch, workers, False)
    assert max(ahead) <= resumable_pass.CHUNK * (workers * resumable_pass.AHEAD + 2)
