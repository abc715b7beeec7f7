"""The binarised files of a data-bin's split, checked before fairseq reads them."""

import struct
from os import PathLike
from pathlib import Path

import numpy as np

from difformer_plugin.errors import UserError

_MAGIC = b"MMIDIDX\x00\x00"
_OTHER_MAGICS = (b"TNTIDX\x00\x00", b"HUFFIDX\x00")  # cached or lazy, huffman
_DTYPES = {
    1: np.uint8,
    2: np.int8,
    3: np.int16,
    4: np.int32,
    5: np.int64,
    8: np.uint16,
    9: np.uint32,
    10: np.uint64,
}
_HEADER = 26  # bytes: magic, version, type of the tokens, number of sentences
REMEDY = "binarise it again with fairseq-preprocess"


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


def numbered_splits(folder: str | PathLike, split: str, source: str, target: str) -> list[str]:
    """The splits that fairseq-train adds to a split: train1, train2, ... up to the first gap."""
    found: list[str] = []
    while stem_of(folder, f"{split}{len(found) + 1}", source, target, source) is not None:
        found.append(f"{split}{len(found) + 1}")
    return found


def check_dataset(
    folder: str | PathLike,
    split: str,
    source: str,
    target: str,
    types: tuple[int, int] | None = None,
) -> None:
    """Check that the files of a split exist, are complete, and have equally many sentences.

    The target side may be missing.

    Args:
        types: sizes of the source and the target dictionary; the tokens are checked against them.
    Raises:
        UserError: otherwise.
    """
    folder, counts = Path(folder), {}
    for i, language in enumerate((source, target)):
        stem = stem_of(folder, split, source, target, language)
        if stem is None:
            if language == target and counts:
                return  # without targets it can still be translated
            raise UserError(
                f"{folder / split}.{source}-{target}.{language}.idx: no such file; binarise this "
                "split with fairseq-preprocess, or choose another one"
            )
        counts[language] = check_file(stem, types and types[i])
    if len(set(counts.values())) > 1:
        raise UserError(f"{folder}: {split} has unequal numbers of lines: {counts}")


def check_file(stem: Path, types: int | None = None, remedy: str = REMEDY) -> int | None:
    """Check an .idx file and its .bin file.

    Args:
        stem: path without .idx and .bin.
        types: size V of the dictionary; each token must be less.
        remedy: what messages advise.
    Returns:
        the number of sentences, or None for formats other than fairseq's `mmap`.
    Raises:
        UserError: a file is missing, empty or damaged, or has tokens that the dictionary lacks.
    """
    index, binary = Path(f"{stem}.idx"), Path(f"{stem}.bin")
    data = index.read_bytes()
    if not data.startswith(_MAGIC):
        if not data:
            raise UserError(f"{index} is empty: {remedy}")
        if data.startswith(_OTHER_MAGICS):
            return None  # fairseq checks its other formats itself
        raise UserError(f"{index} is no index of fairseq's: {remedy}")
    if len(data) < _HEADER:
        raise UserError(f"{index} is truncated ({len(data)} bytes): {remedy}")
    version, code, count = struct.unpack_from("<QBQ", data, len(_MAGIC))
    if count == 0:
        raise UserError(f"{index} holds no sentences: {remedy}, from files that are not empty")
    if len(data) < _HEADER + 12 * count or code not in _DTYPES or version != 1:
        raise UserError(f"{index} is truncated or damaged ({len(data)} bytes): {remedy}")
    dtype = np.dtype(_DTYPES[code])
    sizes = np.frombuffer(data, np.int32, count, _HEADER).astype(np.int64)
    starts = np.frombuffer(data, np.int64, count, _HEADER + 4 * count)
    ends = sizes.cumsum() * dtype.itemsize
    if (sizes < 0).any() or starts[0] != 0 or not np.array_equal(starts[1:], ends[:-1]):
        raise UserError(f"{index} is damaged: {remedy}")
    needed, found = int(ends[-1]), binary.stat().st_size if binary.is_file() else 0
    if found < needed:
        raise UserError(f"{binary} has {found} of {needed} bytes: {remedy}")
    if types is not None and needed:
        _check_tokens(binary, dtype, needed, types)
    return count


def _check_tokens(binary: Path, dtype: np.dtype, size: int, types: int) -> None:
    """Check that all tokens are in the dictionary.

    Raises:
        UserError: one is not.
    """
    tokens = np.memmap(binary, dtype, "r", shape=size // dtype.itemsize)
    if tokens.max() >= types or tokens.min() < 0:
        raise UserError(
            f"{binary} holds token {tokens.max()}, but its dictionary has {types} types: use the "
            "dict.*.txt that it was binarised with, or binarise it again with these "
            "(fairseq-preprocess --srcdict/--tgtdict)"
        )
