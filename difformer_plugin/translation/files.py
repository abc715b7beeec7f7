"""Translate a stream, or a file so that an interrupted run goes on."""

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import IO, Any

from tqdm import tqdm

from difformer_plugin.data.resumable_pass import run_pass
from difformer_plugin.errors import UserError
from difformer_plugin.storage.files import atomic_text
from difformer_plugin.storage.locks import locked_folder
from difformer_plugin.translation.lines import open_lines, read_lines

Line = tuple[int, str]
Translate = Callable[[Sequence[Line]], list[list[tuple[float, str]]]]
PASS, RESULT, KEY = "translate", "lines", "key.json"  # in the folder of unfinished work


def render(number: int, translations: Sequence[tuple[float, str]], nbest: int) -> str:
    """What is written for a line: its translation or, with several, number, score and text."""
    if nbest == 1:
        return translations[0][1]
    rows = (f"{number}\t{score:.4f}\t{text}" for score, text in translations)
    return "\n".join(rows)


def translate_stream(
    translate: Translate,
    lines: Iterable[Line],
    output: IO[bytes],
    chunk: int,
    nbest: int = 1,
    total: int | None = None,
) -> int:
    """Translate lines as they come, and write each chunk at once.

    Args:
        chunk: lines that are translated together.
        nbest: see `render`.
        total: their number, for the progress bar; None if unknown.
    Returns:
        the number of lines.
    """
    done = 0
    with _bar(total) as bar:
        for some in _chunks(lines, chunk):
            for (number, _), translations in zip(some, translate(some), strict=True):
                output.write(f"{render(number, translations, nbest)}\n".encode())
            output.flush()
            bar.update(len(some))
            done += len(some)
    return done


def _bar(total: int | None) -> Any:
    """A progress bar on the standard error, if that is a terminal."""
    return tqdm(desc=PASS, total=total, unit=" lines", disable=None)


def _chunks(lines: Iterable[Line], size: int) -> Iterator[list[Line]]:
    lines = iter(lines)
    while some := list(islice(lines, size)):
        yield some


def work_folder(output: Path) -> Path:
    """Folder of the finished lines of a run that is not finished."""
    return Path(f"{output}.translating")


def lines_done(output: Path) -> int:
    """The number of lines that an interrupted run has finished."""
    try:
        state = json.loads((work_folder(output) / f"{PASS}.json").read_text("utf-8"))
        return int(state["counts"].get("lines", 0))
    except (OSError, ValueError, KeyError):
        return 0


def translate_file(
    translate: Translate,
    source: Path,
    output: Path,
    key: dict[str, Any],
    chunk: int,
    nbest: int = 1,
    total: int | None = None,
    warn: Callable[[str], None] = print,
) -> int:
    """Translate a file into another, which appears when it is complete.

    An interrupted run goes on after its last finished chunk, with chunks of any size.

    Args:
        key: what the result depends on, by the name of the option; must survive JSON.
        chunk, nbest, total: see `translate_stream`.
        warn: called with warnings about the lines.
    Returns:
        the number of lines.
    Raises:
        UserError: the unfinished run was another one, or is still at work.
    """
    work = work_folder(output)
    with locked_folder(work):
        if not _claim(work, key, output):  # an earlier run was killed between its last two steps
            done = lines_done(output)
            shutil.rmtree(work)
            return done

        def function(some: list[Line]) -> tuple[list[tuple[str, ...]], Counter]:
            rows: list[tuple[str, ...]] = [
                (render(number, translations, nbest),)
                for (number, _), translations in zip(some, translate(some), strict=True)
            ]
            return rows, Counter()

        with open_lines(source) as stream:
            counts = run_pass(
                work, PASS, read_lines(stream, source, warn), function,
                lambda row, before: {RESULT: row[0]}, workers=1, progress=None,
                chunk=chunk, total=total,
            )  # fmt: skip
        os.replace(work / RESULT, output)
        shutil.rmtree(work)
    return counts["lines"]


def _claim(work: Path, key: dict[str, Any], output: Path) -> bool:
    """Begin in an empty folder, or check that an interrupted run did the same.

    Returns:
        whether there is something to do; not if the result was already moved to its place.
    Raises:
        UserError: the interrupted run did something else.
    """
    path = work / KEY
    if not path.exists():
        for other in work.iterdir():
            if other.name != "lock":
                other.unlink()
        (work / RESULT).touch()
        with atomic_text(path) as file:
            json.dump(key, file, indent=1)
        return True
    try:
        earlier = dict(json.loads(path.read_text("utf-8")))
    except (ValueError, TypeError):
        raise UserError(f"{path} is damaged: remove {work}") from None
    differs = [name for name in {**earlier, **key} if earlier.get(name) != key.get(name)]
    if differs:
        raise UserError(
            f"{work} is of a run with another {' and another '.join(differs)}: give the same as "
            f"then, remove the folder, or choose another --output than {output}"
        )
    return (work / RESULT).exists()
