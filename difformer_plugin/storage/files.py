"""Files that are written atomically, so that a reader sees the whole new file or none of it."""

import contextlib
import errno
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from os import PathLike
from pathlib import Path
from typing import Any, TextIO

from difformer_plugin.errors import UserError

FULL_DISK = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)  # of an OSError: there is no room to write


@contextlib.contextmanager
def atomic_path(path: str | PathLike) -> Iterator[str]:
    """Yield a temporary path to write to, which is renamed to `path` when the block succeeds.

    The temporary file is in the same folder and has the same suffix, from which libraries infer the
    format. Missing folders are created. A link stays a link, to a new file; a device or a pipe is
    written to as it is.
    """
    if os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path):
        yield os.fspath(path)
        return
    path = os.path.realpath(path)
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
def atomic_text(path: str | PathLike) -> Iterator[TextIO]:
    """Open `path` for writing UTF-8; the file appears when the block succeeds."""
    with (
        atomic_path(path) as temporary,
        open(temporary, "w", encoding="utf-8", newline="\n") as handle,
    ):
        yield handle


def read_object(path: str | PathLike, remedy: str) -> dict[str, Any]:
    """Read a JSON object.

    Args:
        remedy: what to do about a damaged file, for the error.
    Raises:
        UserError: the file is damaged.
        FileNotFoundError: there is no such file.
    """
    try:
        found = json.loads(Path(path).read_text("utf-8"))
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise UserError(f"{path} is damaged: {remedy}")
    return found


def digest_files(paths: Iterable[str | PathLike]) -> str:
    """Hash of the contents of several files in the given order, 32 hexadecimal digits."""
    digests = hashlib.blake2b(digest_size=16)
    for path in paths:
        with open(path, "rb") as file:
            digests.update(hashlib.file_digest(file, "blake2b").digest())
    return digests.hexdigest()
