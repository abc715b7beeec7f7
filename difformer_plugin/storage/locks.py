"""Exclusive locks on files. They never wait, and the kernel releases them however a process ends.

Two kinds are needed:

- `lock_for_process` belongs to the process (POSIX, `lockf`). Forked children do not inherit it, so
  a worker that outlives its killed parent does not block the next run.
- `open_exclusively` belongs to the open file (BSD, `flock`). It also excludes a second opener in
  the same process.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from os import PathLike
from typing import IO, BinaryIO

from difformer_plugin.errors import UserError


@contextlib.contextmanager
def locked_folder(folder: str | PathLike) -> Iterator[None]:
    """Create a folder if necessary, and keep other processes out of it within the block.

    The lock is on `folder/lock`. Forked children do not hold it.

    Raises:
        UserError: another process holds the folder.
    """
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "lock"), "w") as file:
        lock_for_process(file, folder)
        yield


def lock_for_process(file: IO, name: str | PathLike) -> None:
    """Lock an open file until it is closed, for this process but not for its children.

    Args:
        name: what is locked, for the error message.
    Raises:
        UserError: another process holds the lock.
    """
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        raise _in_use(name) from None


def open_exclusively(path: str | PathLike) -> BinaryIO:
    """Open a file for reading and appending, locked until it is closed; created if necessary.

    Raises:
        UserError: the file is open already, in another process or in this one.
    """
    file = open(path, "a+b")  # noqa: SIM115  (the caller closes it)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # A process that has just finished may have removed the file after we opened it.
        if os.fstat(file.fileno()).st_ino == os.stat(path).st_ino:
            return file
    except (BlockingIOError, FileNotFoundError):
        pass
    with contextlib.suppress(OSError):
        file.close()
    raise _in_use(path)


def _in_use(name: str | PathLike) -> UserError:
    return UserError(
        f"{name} is in use by another process: wait until it ends, or choose another output"
    )
