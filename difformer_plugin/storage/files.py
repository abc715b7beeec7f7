"""Atomic files: a reader sees the whole new file or none of it."""

import contextlib
import hashlib
import os
from collections.abc import Iterable, Iterator
from os import PathLike
from typing import TextIO


@contextlib.contextmanager
def atomic_path(path: str | PathLike) -> Iterator[str]:
    """Yield a temporary path to write to, which is renamed to `path` when the block succeeds.

    The temporary file is in the same folder and has the same suffix, from which libraries infer the
    format. Missing folders are created.
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
def atomic_text(path: str | PathLike) -> Iterator[TextIO]:
    """Open `path` for writing UTF-8; the file appears when the block succeeds."""
    with (
        atomic_path(path) as temporary,
        open(temporary, "w", encoding="utf-8", newline="\n") as handle,
    ):
        yield handle


def digest_files(paths: Iterable[str | PathLike]) -> str:
    """Hash of the contents of several files in the given order, 32 hexadecimal digits."""
    digests = hashlib.blake2b(digest_size=16)
    for path in paths:
        with open(path, "rb") as file:
            digests.update(hashlib.file_digest(file, "blake2b").digest())
    return digests.hexdigest()
