"""Append-only journal: finished pieces of a long job survive a kill at any moment."""

import json
import os
import zlib
from collections.abc import Iterator
from os import PathLike
from typing import Any

from difformer_plugin.storage.locks import open_exclusively


class Journal:
    """JSON records in a file, open in one place at a time.

    Each line is the CRC-32 of a record in eight hexadecimal digits, a space, and the record as
    JSON. On opening, the file is truncated at the first line that is incomplete or fails its
    checksum, such as the one that was being written when the process died. All records before it
    are kept. The first record is the header.

    Args:
        path: the file, in an existing folder; created if necessary.
    Attributes:
        header: the first record, or None in an empty journal.
        count: number of records after the header.
    Raises:
        UserError: the journal is open already, in another process or in this one.
    """

    def __init__(self, path: str | PathLike) -> None:
        self.path = os.fspath(path)
        self._file = open_exclusively(self.path)
        self.header: Any = None
        self.count, end = 0, 0
        for record, stop in self._scan():
            if self.header is None:
                self.header = record
            else:
                self.count += 1
            end = stop
        self._truncate(end)

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *unused: object) -> None:
        self._file.close()

    def begin(self, header: Any) -> None:
        """Delete all records and start again with a new header."""
        self._truncate(0)
        self._write(header)
        self.header, self.count = header, 0

    def append(self, record: Any) -> None:
        """Add a record; it is on the disk when this returns."""
        self._write(record)
        self.count += 1

    def records(self) -> Iterator[Any]:
        """Yield the records after the header, in the order in which they were appended."""
        for number, (record, _) in enumerate(self._scan()):
            if number > 0:
                yield record

    def _scan(self) -> Iterator[tuple[Any, int]]:
        """Yield each record and its end in bytes, up to the first invalid line."""
        self._file.seek(0)
        end = 0
        for line in self._file:
            record = _parse(line)
            if record is None:
                return
            end += len(line)
            yield record, end

    def _truncate(self, end: int) -> None:
        self._file.seek(end)
        self._file.truncate()

    def _write(self, record: Any) -> None:
        text = json.dumps(record, separators=(",", ":")).encode()
        self._file.seek(0, os.SEEK_END)
        self._file.write(b"%08x %s\n" % (zlib.crc32(text), text))
        self._file.flush()
        os.fsync(self._file.fileno())


def _parse(line: bytes) -> Any:
    """The record of a line, or None if the line is incomplete or fails its checksum."""
    if len(line) < 10 or not line.endswith(b"\n"):
        return None
    checksum, text = line[:9], line[9:-1]
    try:
        return json.loads(text) if checksum == b"%08x " % zlib.crc32(text) else None
    except (ValueError, RecursionError):
        return None
