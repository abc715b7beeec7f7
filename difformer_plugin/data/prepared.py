"""Is a prepared corpus still as `difformer prepare` made it?"""

from collections.abc import Mapping
from pathlib import Path

from difformer_plugin.data import pipeline
from difformer_plugin.data.data_bin_files import check_file
from difformer_plugin.data.recipe import SPLITS, Recipe
from difformer_plugin.data.sources import read_lines
from difformer_plugin.data.subwords import subword_kind
from difformer_plugin.errors import UserError


def check_text_files(recipe: Recipe, out: Path, langs: tuple[str, str]) -> None:
    """Check that no file of text and reference was deleted; a whole folder may be gone.

    Raises:
        UserError: one was.
    """
    kind = subword_kind(recipe)
    wanted = {
        "text": [f"{split}.{lang}" for split in SPLITS for lang in langs]
        + ([pipeline.SUBWORD_FILES[kind]] if kind != pipeline.NONE else []),
        "reference": [f"{split}.{lang}" for split in SPLITS if split != "train" for lang in langs],
    }
    for folder, names in wanted.items():
        for path in (out / folder / name for name in names):
            if path.parent.is_dir() and not path.exists():
                raise UserError(f"{path} is gone: remove {out} and prepare it again")


def check_lines(out: Path, langs: tuple[str, str], counts: Mapping[str, Mapping[str, int]]) -> None:
    """Check that the text has as many lines as were written.

    Args:
        counts: for each split its number of `pairs`.
    Raises:
        UserError: it has not.
    """
    for split, count in counts.items():
        for path in (out / "text" / f"{split}.{lang}" for lang in langs):
            found = sum(1 for _ in read_lines(path))
            if found != count["pairs"]:
                raise UserError(
                    f"{path} has {found:,} lines, and {count['pairs']:,} were written: remove "
                    f"{out} and prepare it again"
                )


def check_data_bin(
    data_bin: Path, langs: tuple[str, str], counts: Mapping[str, Mapping[str, int]]
) -> None:
    """Check that a data-bin is still as it was made.

    Args:
        counts: for each split its number of `pairs`.
    Raises:
        UserError: a file is missing or damaged, or holds another number of sentences.
    """
    remedy = f"remove {data_bin} and run the same command again, which makes it anew"
    for lang in langs:
        if not (data_bin / f"dict.{lang}.txt").is_file():
            raise UserError(f"{data_bin}/dict.{lang}.txt is gone: {remedy}")
        for split, count in counts.items():
            stem = data_bin / f"{split}.{'-'.join(langs)}.{lang}"
            if not Path(f"{stem}.idx").is_file():
                raise UserError(f"{stem}.idx is gone: {remedy}")
            found = check_file(stem, remedy=remedy)
            if found != count["pairs"]:
                raise UserError(f"{stem} has {found} sentences, not {count['pairs']}: {remedy}")
