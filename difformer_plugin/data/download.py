"""Download the files of a recipe: resumable, and checked by size."""

import http.client
import os
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import BinaryIO

from difformer_plugin.data.recipe import Recipe
from difformer_plugin.data.sources import Folder
from difformer_plugin.errors import UserError
from difformer_plugin.storage.locks import lock_for_process

BLOCK = 1 << 18
SECONDS = 60  # without a byte before a connection is given up
PACKED = {".gz": b"\x1f\x8b", ".tgz": b"\x1f\x8b", ".zip": b"PK"}  # first bytes of such files


def download(
    recipe: Recipe, folder: str | PathLike, langs: Sequence[str], progress: bool = True
) -> None:
    """Fetch the files of a recipe that these languages need and the folder does not have yet.

    An incomplete file is kept as `NAME.part`, from which the next call resumes.

    Args:
        folder: where to put the files; created if necessary.
        langs: source and target language.
        progress: show a progress bar.
    Raises:
        UserError: the recipe has no URL, a server refuses, or a size is wrong.
    """
    wanted = [d for d in recipe.download if not d.languages or set(d.languages) & set(langs)]
    if not wanted:
        raise UserError(
            f"{recipe.title} cannot be fetched from a public address: get it from "
            f"{recipe.published}, and put the files into --raw"
        )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for item in wanted:
        name = item.file or os.path.basename(urllib.parse.urlparse(item.url).path)
        if not _is_there(recipe, Folder(folder), langs, name):
            fetch(item.url, folder / name, item.bytes, progress)


def _is_there(recipe: Recipe, folder: Folder, langs: Sequence[str], name: str) -> bool:
    """Whether the folder has a file, or everything that the recipe needs from it."""
    if any(path.name == name for path in folder.paths):
        return True
    wanted = []
    for split in (recipe.train, recipe.valid, recipe.test):
        for source in split.files:
            for lang in langs:
                names = source.names(lang, *langs)
                if name == source.archive or name.removesuffix(".gz") in names:
                    wanted.append(names)
    return bool(wanted) and all(folder.has(names) for names in wanted)


def fetch(url: str, path: str | PathLike, expected: int, progress: bool = True) -> None:
    """Fetch a file, which gets its name when it is complete.

    Args:
        url: its address.
        path: where to put it.
        expected: its size in bytes; 0 relies on the size that the server gives.
        progress: show a progress bar.
    Raises:
        UserError: no answer, a refusal, a different size, or another process is fetching it.
    """
    part = Path(f"{path}.part")
    with open(part, "ab") as file:
        lock_for_process(file, part)
        try:
            size = _continue(url, file, progress)
        except (OSError, http.client.HTTPException, ValueError) as error:
            if not os.path.getsize(part):
                part.unlink()
            raise UserError(
                f"{url}: {getattr(error, 'reason', None) or error}; run the same command again, "
                "which resumes from here, or fetch the file yourself"
            ) from error
        _check(url, part, file.tell(), expected, size)
        os.replace(part, path)


def _check(url: str, part: Path, found: int, expected: int, size: int | None) -> None:
    """Raise a UserError unless the file is complete and has the expected size and type."""
    if size is not None and found < size:
        raise UserError(
            f"{url}: the connection ended after {found:,} of {size:,} bytes; run the same command "
            "again, which resumes from here"
        )
    wanted = expected or size
    if wanted is None:
        problem = "comes without its size, so it cannot be told whether it is complete"
    elif found != wanted:
        problem = f"has {found:,} bytes, not {wanted:,}"
    elif not _begins_as(part, PACKED.get(part.with_suffix("").suffix, b"")):
        problem = "is not an archive, but perhaps a web page with a message"
    else:
        return
    part.unlink()
    raise UserError(f"{url} {problem}: fetch the file yourself (the download was removed)")


def _begins_as(path: Path, start: bytes) -> bool:
    with open(path, "rb") as file:
        return file.read(len(start)) == start


def _continue(url: str, file: BinaryIO, progress: bool) -> int | None:
    """Append the missing bytes to a file; returns the total size if the server gives it."""
    start = file.tell()
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        response = urllib.request.urlopen(request, timeout=SECONDS)
    except urllib.error.HTTPError as error:
        if error.code != 416:  # otherwise the range starts at the end of the file
            raise
        total = error.headers.get("Content-Range", "").rpartition("/")[2]
        if total.isdigit():
            return int(total)
        _empty(file)
        return _continue(url, file, progress)
    with response:
        if start:
            place = re.match(rf"bytes {start}-\d+/", response.headers.get("Content-Range", ""))
            if response.status != 206 or place is None:  # the server sends the whole file
                _empty(file)
                start = 0
        length = response.headers.get("Content-Length")
        size = start + int(length) if length else None
        _copy(response, file, start, size, progress)
    return size


def _empty(file: BinaryIO) -> None:
    file.truncate(0)
    file.seek(0)


def _copy(
    response: http.client.HTTPResponse,
    file: BinaryIO,
    start: int,
    size: int | None,
    progress: bool,
) -> None:
    from tqdm import tqdm

    name = Path(file.name).stem
    with tqdm(
        desc=name, initial=start, total=size, unit="B", unit_scale=True, disable=not progress
    ) as bar:
        while block := response.read(BLOCK):
            file.write(block)
            bar.update(len(block))
    file.flush()
