"""Data-bins (the output of fairseq-preprocess): their files, checked before fairseq reads them."""

import struct
from os import PathLike
from pathlib import Path

import numpy as np

from difformer_plugin.errors import UserError

SPECIAL_SYMBOLS = 4  # <s>, <pad>, </s> and <unk>, which are not in dict.*.txt
_MAGIC = b"MMIDIDX\x00\x00"
_DTYPES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 4, 7: 8, 8: 2, 9: 4, 10: 8}  # code -> bytes per token


def check_folder(folder: str | PathLike, source: str | None, target: str | None) -> None:
    """Check that a data-bin exists and has a dictionary for each language that is given.

    Raises:
        UserError: the folder or a dictionary is missing.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such data folder; fairseq-preprocess makes one")
    dictionaries = sorted(p.name for p in folder.glob("dict.*.txt"))
    for language in filter(None, (source, target)):
        if f"dict.{language}.txt" not in dictionaries:
            raise UserError(
                f"{folder}: no dict.{language}.txt (there: {', '.join(dictionaries) or 'none'}); "
                "is --source-lang/--target-lang right, and is this fairseq-preprocess's --destdir?"
            )
    if not dictionaries:
        raise UserError(f"{folder}: no dict.*.txt; is this fairseq-preprocess's --destdir?")


def target_vocab_size(folder: str | PathLike, target: str | None = None) -> int:
    """Vocabulary size V of the target dictionary, special symbols included, without fairseq.

    Args:
        folder: the data-bin.
        target: the target language; None infers it from the names of the binarised files.
    Raises:
        UserError: the language cannot be inferred, or the dictionary is missing or not UTF-8.
    """
    folder = Path(folder)
    check_folder(folder, None, target)
    if target is None:
        names = [path.name.split(".") for path in folder.glob("*.*-*.*.idx")]
        targets = {parts[1].split("-")[1] for parts in names}
        if len(targets) != 1:
            raise UserError(
                f"{folder}: the names of its files do not tell the target language: give "
                "--target-lang"
            )
        (target,) = targets
    path = folder / f"dict.{target}.txt"
    try:
        lines = path.read_text("utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 ({error}): run fairseq-preprocess again") from None
    return sum(1 for line in lines if line.strip()) + SPECIAL_SYMBOLS


def stem_of(
    folder: str | PathLike, split: str, source: str, target: str, language: str
) -> Path | None:
    """Path of one side of a split, without .bin and .idx; None if there is no such file.

    The data-bin may have been made for either direction.
    """
    stems = [
        Path(folder) / f"{split}.{pair}.{language}"
        for pair in (f"{source}-{target}", f"{target}-{source}")
    ]
    return next((stem for stem in stems if Path(f"{stem}.idx").is_file()), None)


def check_dataset(folder: str | PathLike, split: str, source: str, target: str) -> None:
    """Check that the files of a split exist, are complete, and have equally many sentences.

    The target side may be missing.

    Raises:
        UserError: otherwise.
    """
    folder, counts = Path(folder), {}
    for language in (source, target):
        stem = stem_of(folder, split, source, target, language)
        if stem is None:
            if language == target and counts:
                return  # without targets it can still be translated
            raise UserError(
                f"{folder / split}.{source}-{target}.{language}.idx: no such file; binarise this "
                "split with fairseq-preprocess, or choose another one"
            )
        counts[language] = _check_file(stem)
    if len(set(counts.values())) > 1:
        raise UserError(f"{folder}: {split} has unequal numbers of lines: {counts}")


def _check_file(stem: Path) -> int | None:
    """Check an .idx file against its .bin file.

    Returns:
        the number of sentences, or None for formats other than fairseq's `mmap`.
    """
    index, binary = Path(f"{stem}.idx"), Path(f"{stem}.bin")
    remedy = "binarise it again with fairseq-preprocess"
    data = index.read_bytes()
    if not data.startswith(_MAGIC):
        if not data:
            raise UserError(f"{index} is empty: {remedy}")
        return None  # fairseq checks its other formats itself
    if len(data) < 26:
        raise UserError(f"{index} is truncated ({len(data)} bytes): {remedy}")
    _, code, count = struct.unpack_from("<QBQ", data, 9)
    if count == 0:
        raise UserError(f"{index} holds no sentences: {remedy}, from files that are not empty")
    if len(data) < 26 + 12 * count or code not in _DTYPES:
        raise UserError(f"{index} is truncated or damaged ({len(data)} bytes): {remedy}")
    sizes = np.frombuffer(data, dtype=np.int32, count=count, offset=26)
    needed = int(sizes.sum(dtype=np.int64)) * _DTYPES[code]
    found = binary.stat().st_size if binary.is_file() else 0
    if found < needed:
        raise UserError(f"{binary} has {found} of {needed} bytes: {remedy}")
    return count
