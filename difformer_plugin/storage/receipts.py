"""Receipts: what a finished command read, wrote and reported.

With one, the same command can tell that there is nothing to do without reading its input again.
Files are recognised by size and time of change.
"""

import json
from collections.abc import Iterable
from os import PathLike
from pathlib import Path
from typing import Any

from difformer_plugin.storage.files import atomic_text


def stamps(paths: Iterable[str | PathLike], apart: Path) -> dict[str, list[int]]:
    """Size and time of change (ns) of each file, and of each file in a folder.

    Args:
        paths: files and folders; those that do not exist have no stamp.
        apart: a file to leave out, which is the receipt itself.
    """
    found = {}
    for path in map(Path, paths):
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        for file in files:
            if file.is_file() and file != apart:
                status = file.stat()
                found[str(file.absolute())] = [status.st_size, status.st_mtime_ns]
    return found


def read(path: Path, setting: Any, paths: Iterable[str | PathLike]) -> Any | None:
    """The result in a receipt, None if it is of another setting or a file has changed since.

    Args:
        setting: what the command does, as JSON can represent it.
        paths: what it reads and writes.
    """
    try:
        receipt = json.loads(path.read_text("utf-8"))
        expected = {"setting": json.loads(json.dumps(setting)), "files": stamps(paths, path)}
        if all(receipt[name] == value for name, value in expected.items()):
            return receipt["result"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass  # it is only a short cut
    return None


def write(path: Path, setting: Any, paths: Iterable[str | PathLike], result: Any) -> None:
    """Write a receipt; arguments as of `read`, and the result that it will return."""
    receipt = {"setting": setting, "files": stamps(paths, path), "result": result}
    with atomic_text(path) as handle:
        json.dump(receipt, handle)
