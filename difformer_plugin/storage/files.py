"""Writing files so that a reader sees all of one or nothing of it."""

import contextlib
import fcntl
import os

from difformer_plugin.errors import UserError


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


@contextlib.contextmanager
def locked(folder):
    """Keep other processes out of a folder in which this one works; created if need be.

    Raises:
        UserError: another process holds it.
    """
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "lock"), "w") as handle:
        lock(handle, folder)
        yield


def lock(handle, name):
    """Hold an open file until it is closed; the lock is this process's, not its children's.

    Raises:
        UserError: another process holds it.
    """
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        raise UserError(
            f"{name} is in use by another process: wait for it, or choose another folder"
        ) from None
