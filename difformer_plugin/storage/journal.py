"""An append-only journal: what long work has finished survives a kill at any moment."""

import contextlib
import fcntl
import json
import os
import zlib

from difformer_plugin.errors import UserError


class Journal:
    """JSON records in a file that one process at a time may hold.

    A line is a CRC-32 in eight hexadecimal digits, a blank, and the JSON that it is of. What was
    being written when the process died fails the check; it and all after it is cut off, so that
    what was appended before is there whole, and nothing else. The first record is the header.

    Args:
        path: the file; it is created in a folder that exists.
    Raises:
        UserError: another process holds it.
    """

    def __init__(self, path):
        self.path = os.fspath(path)
        self._file = _lock(self.path)
        self.header, self.count, end = None, 0, 0
        for record, stop in self._scan():
            if self.header is None:
                self.header = record
            else:
                self.count += 1
            end = stop
        self._cut(end)

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self._file.close()

    def begin(self, header):
        """Forget all records, and begin anew with a header."""
        self._cut(0)
        self._write(header)
        self.header, self.count = header, 0

    def append(self, record):
        """Add a record; when this returns it is on the disk."""
        self._write(record)
        self.count += 1

    def records(self):
        """Yield the records after the header, as they were appended."""
        for number, (record, _) in enumerate(self._scan()):
            if number > 0:
                yield record

    def _scan(self):
        """Yield each whole record and where it ends, up to the first that is not whole."""
        self._file.seek(0)
        end = 0
        for line in self._file:
            record = _parse(line)
            if record is None:
                return
            end += len(line)
            yield record, end

    def _cut(self, end):
        self._file.seek(end)
        self._file.truncate()

    def _write(self, record):
        text = json.dumps(record, separators=(",", ":")).encode()
        self._file.seek(0, os.SEEK_END)
        self._file.write(b"%08x %s\n" % (zlib.crc32(text), text))
        self._file.flush()
        os.fsync(self._file.fileno())


def _parse(line):
    """The record of a line, or None if the line is not what was once written."""
    if len(line) < 10 or not line.endswith(b"\n"):
        return None
    checksum, text = line[:9], line[9:-1]
    return json.loads(text) if checksum == b"%08x " % zlib.crc32(text) else None


def _lock(path):
    """Open a file for this process alone, until it is closed or the process ends in any way."""
    file = open(path, "a+b")  # noqa: SIM115  (the caller closes it)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # a process that has just finished may have removed what was opened here
        if os.fstat(file.fileno()).st_ino == os.stat(path).st_ino:
            return file
    except (BlockingIOError, FileNotFoundError):
        pass
    with contextlib.suppress(OSError):
        file.close()
    raise UserError(
        f"{path} is in use by another process: wait until it ends, or give another --out"
    )
