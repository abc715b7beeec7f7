"""Raw files of a corpus, as their publisher ships them: found, unpacked, and read pair by pair."""

import contextlib
import gzip
import html
import json
import lzma
import os
import re
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from os import PathLike
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from difformer_plugin.data.recipe import Source
from difformer_plugin.data.tables import table_pairs
from difformer_plugin.errors import UserError

SEGMENT = re.compile(r'<seg id="?([^">]*)"?>(.*?)</seg>', re.IGNORECASE)
DOCUMENT = re.compile(r"<doc[ >]", re.IGNORECASE)
# zipfile raises RuntimeError for passwords and NotImplementedError for rare compressions.
DAMAGED = (
    *(gzip.BadGzipFile, EOFError, zlib.error, lzma.LZMAError, tarfile.TarError),
    *(zipfile.BadZipFile, RuntimeError, NotImplementedError),
)
# What `preparation` writes to a folder, and the files that mark such a folder.
RESULTS, UNFINISHED = ("text", "reference", "data-bin"), "unfinished"
DONE, KEY = "prepare.json", "key"


@dataclass(frozen=True)
class Raw:
    """A file, or a member of an archive."""

    path: Path
    member: str = ""

    def __str__(self):
        return f"{self.path}:{self.member}" if self.member else str(self.path)

    @contextlib.contextmanager
    def open(self) -> Iterator[IO[bytes]]:
        """A stream of the unpacked bytes."""
        with contextlib.ExitStack() as stack:
            stream: IO[bytes]
            if not self.member:
                stream = stack.enter_context(open(self.path, "rb"))
            elif zipfile.is_zipfile(self.path):
                packed = stack.enter_context(zipfile.ZipFile(self.path))
                stream = stack.enter_context(packed.open(self.member))
            else:
                tar = stack.enter_context(tarfile.open(self.path, "r|*"))
                stream = next(tar.extractfile(m) for m in tar if m.name == self.member)
            is_gzip = (self.member or self.path.name).endswith(".gz")
            yield cast(IO[bytes], gzip.GzipFile(fileobj=stream)) if is_gzip else stream


class Folder:
    """The files below a folder and in its archives, searched by the end of their paths.

    Results of `difformer prepare` below the folder are ignored.

    Raises:
        UserError: there is no such folder.
    """

    def __init__(self, folder: str | PathLike) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise UserError(f"{folder}: no such folder; give the one with the files of the corpus")
        self.paths = sorted(_files(self.folder))
        self.members: dict[Path, list[str]] = {}  # archive -> its files

    def has(self, names: list[str]) -> bool:
        """Whether there is a file with one of these names, plain or gzipped, outside archives."""
        return bool(self._find(names))

    def _find(self, names: list[str]) -> list[Raw]:
        wanted = [name + end for name in names for end in ("", ".gz")]
        paths = [p for p in self.paths if _ends(p.relative_to(self.folder), wanted)]
        # if a file is there both plain and gzipped, the plain one
        return [Raw(p) for p in paths if p.suffix != ".gz" or p.with_suffix("") not in paths]

    def find(self, names: list[str], archive: str, published: str) -> Raw:
        """Find the file with one of these names, plain or gzipped, else a member of the archive.

        Args:
            names: alternative names; a path must end in one of them.
            archive: name of the archive that may hold the file; may be empty.
            published: where to get the file, for the error message.
        Raises:
            UserError: there is none, or more than one.
        """
        wanted = [name + end for name in names for end in ("", ".gz")]
        found = self._find(names)
        archives = [p for p in self.paths if archive and p.name == archive]
        if not found:
            found = [Raw(p, m) for p in archives for m in self._list(p) if _ends(m, wanted)]
        if len(found) > 1:
            raise UserError(
                f"{' and '.join(map(str, found[:3]))} could all be {names[0]}: keep one of them"
            )
        if not found:
            inside = f", nor in {archives[0]}" if archives else ""
            shipped = f", which {archive} holds" if archive and not archives else ""
            raise UserError(
                f"{self.folder}: no {' or '.join(names)} there, plain or .gz{inside}{shipped}; it "
                f"comes from {published}"
            )
        return found[0]

    def _list(self, path: Path) -> list[str]:
        """Names of the files in an archive."""
        if path not in self.members:
            try:
                if zipfile.is_zipfile(path):
                    with zipfile.ZipFile(path) as archive:
                        names = [i.filename for i in archive.infolist() if not i.is_dir()]
                else:
                    with tarfile.open(path, "r|*") as archive:
                        names = [member.name for member in archive if member.isfile()]
            except DAMAGED as error:
                raise UserError(f"{path}: damaged archive ({error}); fetch it again") from error
            self.members[path] = sorted(set(names))  # a name may occur twice
        return self.members[path]


def _files(folder: Path) -> Iterator[Path]:
    """Yield all files below a folder, except those that `preparation` wrote."""
    for place, folders, names in os.walk(folder, followlinks=True):
        if DONE in names or os.path.exists(os.path.join(place, UNFINISHED, KEY)):
            folders[:] = [name for name in folders if name not in (*RESULTS, UNFINISHED)]
        yield from (Path(place, name) for name in names)


def _ends(path: str | PathLike, names: list[str]) -> bool:
    """Whether a path equals one of the names, or ends in one after a slash."""
    parts = PurePosixPath(path).parts
    return any(
        parts[-len(PurePosixPath(name).parts) :] == PurePosixPath(name).parts for name in names
    )


def read_lines(raw: Raw | str | PathLike) -> Iterator[str]:
    r"""Yield the lines of a UTF-8 file, split on \n only, so that U+2028 and the like stay inside.

    Args:
        raw: a Raw, or the path of a file, plain or ending in .gz.
    Raises:
        UserError: invalid UTF-8 or a damaged file; the message names the line.
    """
    raw = raw if isinstance(raw, Raw) else Raw(Path(raw))
    number = 0
    try:
        with raw.open() as stream:
            for number, line in enumerate(stream, start=1):
                text = line.rstrip(b"\r\n").decode("utf-8")
                yield text.removeprefix("\ufeff") if number == 1 else text
    except UnicodeDecodeError as error:
        raise UserError(
            f"{raw}, line {number}: not UTF-8 ({error.reason}); convert the file with iconv"
        ) from error
    except DAMAGED as error:
        raise UserError(
            f"{raw}: damaged gzip or archive after line {number} ({error}); fetch the file again"
        ) from error


def side_by_side(left: Iterator, right: Iterator, names: Sequence[Any]) -> Iterator[tuple]:
    """Yield the entries of two iterators, pair by pair.

    Args:
        names: of the two files, for messages.
    Raises:
        UserError: a file is empty, or their lengths differ; the message gives both lengths.
    """
    nothing = object()
    for whole in count():  # noqa: B007 - used after the loop
        pair = (next(left, nothing), next(right, nothing))
        if nothing in pair:
            break
        yield pair
    counts = [
        whole + (entry is not nothing) + sum(1 for _ in rest)
        for entry, rest in zip(pair, (left, right))
    ]
    for name, number in zip(names, counts):
        if number == 0:
            raise UserError(f"{name}: the file is empty; it needs one sentence per line")
    if counts[0] != counts[1]:
        raise UserError(
            f"{names[0]} has {counts[0]} lines and {names[1]} has {counts[1]}; "
            "they must be translations line by line"
        )


class Pairs:
    """The sentence pairs of one source of a recipe.

    Iterating yields (place, source text, target text); `place` is the file and the line number of
    each side, for messages.

    Args:
        source: files of the recipe.
        folder: where to look for them.
        langs: source and target language.
        published: where to get the files, for messages.
    Raises:
        UserError: a file is missing. On iterating also: it is damaged, or the two sides do not
            match.
    """

    def __init__(
        self, source: Source, folder: Folder, langs: tuple[str, str], published: str
    ) -> None:
        self.source, self.langs = source, langs
        self.raws = [
            folder.find(source.names(lang, *langs), source.archive_of(lang), published)
            for lang in langs
        ]

    def __iter__(self) -> Iterator[tuple]:
        if self.source.format == "jsonl":
            pairs = self._objects()
        elif self.source.format == "segments":
            pairs = self._segments()
        elif self.source.format == "tsv":
            pairs = self._rows()
        else:
            pairs = self._lines()
        for place, *texts in pairs:
            yield place, *map(self._edit, texts)

    def _place(self, *numbers):
        return tuple(zip(self.raws, numbers, strict=True))

    def _edit(self, text):
        for string in self.source.remove:
            text = text.replace(string, "")
        for old, new in self.source.replace.items():
            text = text.replace(old, new)
        return html.unescape(text) if self.source.decode_entities else text

    def _lines(self):
        marks = self.source.drop_lines_with
        files = [read_lines(raw) for raw in self.raws]
        for number, (left, right) in enumerate(side_by_side(*files, self.raws), start=1):
            dropped = [[mark in text for mark in marks] for text in (left, right)]
            if dropped[0] != dropped[1]:
                raise UserError(
                    f"{self.raws[0]} and {self.raws[1]}, line {number}: only one of them is a "
                    f"line with {' or '.join(marks)}; the two files are not aligned"
                )
            if not any(dropped[0]):
                yield self._place(number, number), left, right

    def _segments(self):
        files = [_read_segments(raw) for raw in self.raws]
        for left, right in side_by_side(*files, self.raws):
            if left[:2] != right[:2]:
                raise UserError(
                    f"{self.raws[0]}, line {left[2]}, has segment {left[1]} of document {left[0]} "
                    f"where {self.raws[1]}, line {right[2]}, has segment {right[1]} of document "
                    f"{right[0]}; the two files are not aligned"
                )
            yield self._place(left[2], right[2]), left[3], right[3]

    def _objects(self):
        if self.raws[0] != self.raws[1]:
            raise UserError(f"{self.raws[0]} and {self.raws[1]}: one file must hold both sides")
        self._check_fields()
        raw, keys, number = self.raws[0], [self.source.fields[lang] for lang in self.langs], 0
        for number, line in enumerate(read_lines(raw), start=1):
            texts = _strings(line, keys)
            if texts is None:
                raise UserError(
                    f"{raw}, line {number}: not a JSON object with the strings "
                    f"{' and '.join(map(repr, keys))}"
                )
            yield self._place(number, number), *(" ".join(text.split("\n")) for text in texts)
        if number == 0:
            raise UserError(f"{raw}: the file is empty; it needs one JSON object per line")

    def _rows(self):
        self._check_fields()
        files = [read_lines(raw) for raw in self.raws]
        for left, right, *texts in table_pairs(self.source, self.langs, self.raws, files):
            yield self._place(left, right), *(" ".join(text.split("\n")) for text in texts)

    def _check_fields(self):
        if missing := [lang for lang in self.langs if lang not in self.source.fields]:
            raise UserError(f"the recipe's fields for {self.raws[0]} lack {missing[0]}")


def _strings(line: str, keys: list[str]) -> list[str] | None:
    """Values of a JSON object, or None unless all are strings of valid characters."""
    try:
        entry = json.loads(line)
        texts = [entry[key] for key in keys]
        for text in texts:
            text.encode("utf-8")  # fails on half a surrogate pair
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    return texts


def _read_segments(raw: Raw) -> Iterator[tuple[int, str, int, str]]:
    """Yield (document number, segment id, line number, text) of each <seg> in a file."""
    document = 0
    for number, line in enumerate(read_lines(raw), start=1):
        document += DOCUMENT.search(line) is not None
        found = SEGMENT.findall(line)
        if len(found) != line.lower().count("<seg"):
            raise UserError(
                f'{raw}, line {number}: not a segment, <seg id="…"> text </seg>, on one line'
            )
        for name, text in found:
            yield document, name, number, text.strip()
