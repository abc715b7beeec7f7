"""Fetching a recipe's files: resumed where it was stopped, and checked by size."""

import os
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from difformer_plugin.errors import UserError

BLOCK = 1 << 18
SECONDS = 60  # without a byte, before a connection is given up


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
        if not (folder / name).exists():
            fetch(item.url, folder / name, item.bytes, progress)


def fetch(url, path, expected, progress=True):
    """Fetch a file; it has its name only when it is whole.

    Args:
        expected: its size in bytes; 0 takes the server's word.
    Raises:
        UserError: no answer, a refusal, or another size.
    """
    part = Path(f"{path}.part")
    try:
        size = _continue(url, part, progress)
    except (urllib.error.URLError, OSError) as error:
        raise UserError(
            f"{url}: {getattr(error, 'reason', None) or error}; run the same command again, which "
            "goes on from here, or fetch the file yourself"
        ) from error
    found = part.stat().st_size
    if size is not None and found < size:
        raise UserError(
            f"{url}: the connection ended after {found:,} of {size:,} bytes; run the same command "
            "again, which goes on from here"
        )
    wanted = expected or size
    if wanted and found != wanted:
        part.unlink()
        raise UserError(
            f"{url} has {found:,} bytes, not {wanted:,}: it is not the file that the recipe means "
            "(what was fetched has been removed)"
        )
    os.replace(part, path)


def _continue(url, part, progress):
    """Append to `part` what is missing; returns the whole size, if the server tells it."""
    from tqdm import tqdm

    start = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        response = urllib.request.urlopen(request, timeout=SECONDS)
    except urllib.error.HTTPError as error:
        if error.code != 416:  # the range begins where the file ends: it is whole, or another file
            raise
        total = error.headers.get("Content-Range", "").rpartition("/")[2]
        return int(total) if total.isdigit() else None
    with response:
        if start and response.status != 206:  # the server sends all of it
            start = 0
        length = response.headers.get("Content-Length")
        size = start + int(length) if length else None
        with (
            open(part, "ab" if start else "wb") as file,
            tqdm(
                desc=part.stem, initial=start, total=size, unit="B", unit_scale=True,
                disable=not progress,
            ) as bar,
        ):  # fmt: skip
            while block := response.read(BLOCK):
                file.write(block)
                bar.update(len(block))
    return size
