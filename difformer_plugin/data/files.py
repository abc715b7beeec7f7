"""Writing files so that a reader sees all of one or nothing of it."""

import contextlib
import os


@contextlib.contextmanager
def atomic_path(path):
    """A temporary name beside `path` to write to; the file takes its own when the block succeeds.

    The name ends as `path` does, since libraries tell formats by it.
    """
    folder, name = os.path.split(os.fspath(path))
    os.makedirs(folder or ".", exist_ok=True)
    temporary = os.path.join(folder, f".{os.getpid()}.tmp.{name}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.remove(temporary)


@contextlib.contextmanager
def atomic_text(path):
    """Open `path` for writing UTF-8; the file takes its name only when the block succeeds."""
    with (
        atomic_path(path) as temporary,
        open(temporary, "w", encoding="utf-8", newline="\n") as handle,
    ):
        yield handle
