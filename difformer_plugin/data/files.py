"""Writing files so that a reader sees all of one or nothing of it."""

import contextlib
import os


@contextlib.contextmanager
def atomic_text(path):
    """Open `path` for writing UTF-8; the file takes its name only when the block succeeds."""
    path = os.fspath(path)
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    temporary = f"{path}.{os.getpid()}.tmp"
    try:
        with open(temporary, "w", encoding="utf-8", newline="\n") as handle:
            yield handle
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.remove(temporary)
