"""Fetching a recipe's files: resumed where it was stopped, and checked by size."""

import http.client
import os
import re
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from difformer_plugin.data.sources import Folder
from difformer_plugin.errors import UserError
from difformer_plugin.storage.locks import lock_for_process

BLOCK = 1 << 18
SECONDS = 60  # without a byte, before a connection is given up
PACKED = {".gz": b"\x1f\x8b", ".tgz": b"\x1f\x8b", ".zip": b"PK"}  # how such files begin


def download(recipe, folder, langs, progress=True):
    """Fetch what a recipe names for these languages and the folder does not have yet.

    What is fetched so far is kept as `NAME.part`, from which the next call goes on.

    Raises:
        UserError: the recipe names nothing, a server refuses, or the size is wrong.
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


def _is_there(recipe, folder, langs, name):
    """Whether the folder has a file, or all that the recipe wants out of it."""
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


def fetch(url, path, expected, progress=True):
    """Fetch a file; it has its name only when it is whole.

    Args:
        expected: its size in bytes; 0 takes the server's word.
    Raises:
        UserError: no answer, a refusal, another size, or another process that fetches it.
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
                "which goes on from here, or fetch the file yourself"
            ) from error
        _check(url, part, file.tell(), expected, size)
        os.replace(part, path)


def _check(url, part, found, expected, size):
    """Raise a UserError unless the file is whole and the one that is meant."""
    if size is not None and found < size:
        raise UserError(
            f"{url}: the connection ended after {found:,} of {size:,} bytes; run the same command "
            "again, which goes on from here"
        )
    wanted = expected or size
    if wanted is None:
        problem = "comes without its size, so that nobody can tell whether it is whole"
    elif found != wanted:
        problem = f"has {found:,} bytes, not {wanted:,}"
    elif not _begins_as(part, PACKED.get(part.with_suffix("").suffix, b"")):
        problem = "is no archive, but perhaps a page that says why"
    else:
        return
    part.unlink()
    raise UserError(f"{url} {problem}: fetch the file yourself (what was fetched has been removed)")


def _begins_as(path, start):
    with open(path, "rb") as file:
        return file.read(len(start)) == start


def _continue(url, file, progress):
    """Append to a file what is missing; returns the whole size, if the server tells it."""
    start = file.tell()
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        response = urllib.request.urlopen(request, timeout=SECONDS)
    except urllib.error.HTTPError as error:
        if error.code != 416:  # the range begins where the file ends: it is whole, or another file
            raise
        total = error.headers.get("Content-Range", "").rpartition("/")[2]
        if total.isdigit():
            return int(total)
        _empty(file)
        return _continue(url, file, progress)
    with response:
        if start:
            place = re.match(rf"bytes {start}-\d+/", response.headers.get("Content-Range", ""))
            if response.status != 206 or place is None:  # the server sends all of it
                _empty(file)
                start = 0
        length = response.headers.get("Content-Length")
        size = start + int(length) if length else None
        _copy(response, file, start, size, progress)
    return size


def _empty(file):
    file.truncate(0)
    file.seek(0)


def _copy(response, file, start, size, progress):
    from tqdm import tqdm

    name = Path(file.name).stem
    with tqdm(
        desc=name, initial=start, total=size, unit="B", unit_scale=True, disable=not progress
    ) as bar:
        while block := response.read(BLOCK):
            file.write(block)
            bar.update(len(block))
    file.flush()
