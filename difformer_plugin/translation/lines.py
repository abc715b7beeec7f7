"""Lines of a file or a stream: as many as there are newlines, whatever bytes are in them."""

import gzip
import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from os import PathLike
from typing import IO, Any

from difformer_plugin.data.sources import DAMAGED
from difformer_plugin.errors import UserError

BLOCK = 1 << 20
BYTE_ORDER_MARK = "\ufeff"


def open_lines(path: str | PathLike) -> IO[bytes]:
    """Open a file, plain or ending in .gz, for reading bytes."""
    opened: Any = gzip.open if str(path).endswith(".gz") else open
    return opened(path, "rb")


def read_lines(
    stream: Iterable[bytes], name: object, warn: Callable[[str], None]
) -> Iterator[tuple[int, str]]:
    """Yield (number from 1, text) of each line, split at newlines only.

    Bytes that are not UTF-8 are replaced by U+FFFD, with one warning.

    Args:
        name: of the stream, for messages.
        warn: called with the warning.
    Raises:
        UserError: a compressed file is damaged.
    """
    number, warned = 0, False
    try:
        for number, line in enumerate(stream, start=1):
            line = line.rstrip(b"\r\n")
            try:
                text = line.decode("utf-8")
            except UnicodeDecodeError:
                text = line.decode("utf-8", "replace")
                if not warned:
                    warn(f"line {number} is not UTF-8: such bytes are read as U+FFFD")
                    warned = True
            yield number, text.removeprefix(BYTE_ORDER_MARK) if number == 1 else text
    except DAMAGED as error:
        raise UserError(
            f"{name}: damaged after line {number} ({error}); compress or copy it again"
        ) from error


def count_lines(path: str | PathLike) -> tuple[int, str]:
    """The number of lines of a file, and a hash of its content.

    Raises:
        UserError: a compressed file is damaged.
    """
    count, last, digest = 0, b"\n", hashlib.blake2b(digest_size=16)
    try:
        with open_lines(path) as file:
            while block := file.read(BLOCK):
                count, last = count + block.count(b"\n"), block[-1:]
                digest.update(block)
    except DAMAGED as error:
        raise UserError(f"{path}: damaged ({error}); compress or copy it again") from error
    return count + (last != b"\n"), digest.hexdigest()


def count_rest(stream: IO[bytes]) -> int | None:
    """The number of lines that an unread stream has, or None if it is not a file on a disk."""
    descriptor = stream.fileno()
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        return None
    place, count, last = os.lseek(descriptor, 0, os.SEEK_CUR), 0, b"\n"
    while block := os.pread(descriptor, BLOCK, place):
        count, last, place = count + block.count(b"\n"), block[-1:], place + len(block)
    return count + (last != b"\n")
