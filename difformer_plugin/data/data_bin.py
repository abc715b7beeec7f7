"""Data-bins (the output of fairseq-preprocess): folder, languages and dictionaries; no fairseq.

A mistake is found before fairseq reads the data. `data_bin_files` checks the binarised files.
"""

from collections.abc import Sequence
from os import PathLike
from pathlib import Path

from difformer_plugin.errors import UserError

SPECIALS = ("<s>", "<pad>", "</s>", "<unk>")  # fairseq adds them; they are not in dict.*.txt
OVERWRITE = "#fairseq:overwrite"  # marks a line that may repeat a symbol
FILE_ENDS = (".idx", ".bin")


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


def check_folders(
    folders: Sequence[str | PathLike], source: str | None, target: str | None
) -> tuple[str, str]:
    """Check data-bins that are used together, and find their languages.

    Args:
        folders: data-bins; fairseq takes the dictionaries of the first.
        source, target: languages; None infers one from the names of the files in the first.
    Returns:
        the source and the target language.
    Raises:
        UserError: a folder or a dictionary is missing or damaged, the languages cannot be inferred,
            or the folders have different dictionaries.
    """
    if not folders or not all(str(folder) for folder in folders):
        raise UserError("the data-bin has an empty name: give a folder, or several joined by ':'")
    for folder in folders:
        check_folder(folder, source, target)
    pair = language_pair(folders[0], source, target)
    first, *others = map(Path, folders)
    for language in dict.fromkeys(pair):
        name = f"dict.{language}.txt"
        symbols = read_dictionary(first / name)
        for other in others:
            check_folder(other, *pair)
            check_same_symbols(first / name, symbols, other / name)
    return pair


def language_pair(
    folder: str | PathLike, source: str | None = None, target: str | None = None
) -> tuple[str, str]:
    """Source and target language of a data-bin; those that are not given are inferred.

    They are inferred from the names of the binarised files, SPLIT.SOURCE-TARGET.LANGUAGE.idx. The
    dictionaries tell where the source ends, so that languages may contain hyphens and dots.

    Raises:
        UserError: the names tell no pair that fits, or several.
    """
    if source and target:
        return source, target
    pairs = _pairs_in_names(Path(folder))
    # A data-bin of de-en also serves for en-de, but only if a language says so.
    both = pairs | {(b, a) for a, b in pairs} if source or target else pairs
    fitting = sorted(p for p in both if source in (None, p[0]) and target in (None, p[1]))
    if len(fitting) == 1:
        return fitting[0]
    found = ", ".join(f"{a}-{b}" for a, b in sorted(pairs)) or "none"
    raise UserError(
        f"{folder}: the names of its files do not tell the source and target language (pairs: "
        f"{found}): give --source-lang and --target-lang"
    )


def _pairs_in_names(folder: Path) -> set[tuple[str, str]]:
    """The language pairs in the names of binarised files (and of raw ones, without an ending)."""
    languages = [path.name[5:-4] for path in folder.glob("dict.*.txt")]
    endings = {
        f".{a}-{b}.{side}": (a, b)
        for a in languages
        for b in languages
        if a != b
        for side in (a, b)
    }
    pairs = set()
    for path in folder.iterdir():
        stem = path.name.removesuffix(path.suffix) if path.suffix in FILE_ENDS else path.name
        pairs |= {pair for ending, pair in endings.items() if stem.endswith(ending)}
    return pairs


def target_vocab_size(folder: str | PathLike, target: str | None = None) -> int:
    """Vocabulary size V of the target dictionary, special symbols included.

    Args:
        folder: the data-bin.
        target: the target language; None infers it from the names of the binarised files.
    Raises:
        UserError: the language cannot be inferred, or the dictionary is missing or damaged.
    """
    folder = Path(folder)
    check_folder(folder, None, target)
    language = target or language_pair(folder)[1]
    return len(SPECIALS) + len(read_dictionary(folder / f"dict.{language}.txt"))


def read_dictionary(path: str | PathLike) -> list[str]:
    """The symbols of dict.*.txt in their order, read as fairseq's Dictionary does.

    Raises:
        UserError: the file is missing or not UTF-8, a line is not a symbol and its count, or a
            symbol occurs twice.
    """
    remedy = "copy it again, or run fairseq-preprocess again"
    try:
        with open(path, encoding="utf-8") as file:
            lines = file.readlines()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}: {remedy}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 ({error}): {remedy}") from None
    symbols, seen = [], set(SPECIALS)
    for number, line in enumerate(lines, start=1):
        try:
            symbol, count = line.rstrip().rsplit(" ", 1)
            may_repeat = count == OVERWRITE
            if may_repeat:
                symbol, count = symbol.rsplit(" ", 1)
            int(count)
        except ValueError:
            raise UserError(
                f"{path}, line {number}: {line.strip()[:40]!r} is not a symbol, a space and its "
                f"count: {remedy}"
            ) from None
        if symbol in seen and not may_repeat:
            raise UserError(f"{path}, line {number}: {symbol[:40]!r} occurs twice: {remedy}")
        seen.add(symbol)
        symbols.append(symbol)
    return symbols


def check_same_symbols(path: Path, symbols: Sequence[str], other_path: Path) -> None:
    """Check that another dictionary has the same symbols in the same order.

    Raises:
        UserError: it has not.
    """
    other = read_dictionary(other_path)
    if symbols == other:
        return
    differ = (i for i, (a, b) in enumerate(zip(symbols, other), start=1) if a != b)
    line = next(differ, min(len(symbols), len(other)) + 1)
    raise UserError(
        f"{other_path} is not the dictionary of {path}, by which its numbers would be read (line "
        f"{line} differs): binarise it with fairseq-preprocess --srcdict/--tgtdict of the first"
    )
