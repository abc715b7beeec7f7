"""The target language of translations that do not name it, from the data-bin near them."""

from os import PathLike
from pathlib import Path

from difformer_plugin.data import pipeline
from difformer_plugin.errors import UserError

# Where a data-bin or a folder of checkpoints may be, seen from the file of translations.
NEAR = (".", "data-bin", "*/data-bin", "checkpoints", "..", "../data-bin", "../checkpoints")


def language_nearby(path: str | PathLike) -> tuple[str, Path] | None:
    """The target language in the files `pipeline.json` near a file, and the first of these.

    Args:
        path: of the translations.
    Returns:
        None if there is no such file, or if they name different languages.
    """
    folder = Path(path).absolute().parent
    files = [file for place in NEAR for file in sorted(folder.glob(f"{place}/{pipeline.FILE}"))]
    found = [(lang, file) for file in files if (lang := _target(file))]
    return found[0] if len({lang for lang, _ in found}) == 1 else None


def _target(file: Path) -> str | None:
    """The target language of a pipeline; None if the file is damaged."""
    try:
        described = pipeline.load(file.parent)
    except (UserError, OSError):
        return None
    return described.target_lang if described else None
