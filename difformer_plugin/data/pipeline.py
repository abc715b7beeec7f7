"""How raw text becomes the subwords of a data-bin and back.

`difformer prepare` writes this down as `pipeline.json`, with the file of the subwords beside it.
Training copies both beside its checkpoints, so that raw text can be translated with them.
"""

import dataclasses
import json
import logging
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from difformer_plugin.data.cleaning import normalise, to_tokens
from difformer_plugin.data.recipe import Text, build
from difformer_plugin.data.tokenisation import (
    check_sentencepiece,
    detokeniser,
    load_codes,
    load_sentencepiece,
    remove_bpe,
)
from difformer_plugin.errors import UserError
from difformer_plugin.storage.files import atomic_path, atomic_text, digest_files

logger = logging.getLogger(__name__)

FILE = "pipeline.json"
FORMAT = 1
NONE, BPE, SENTENCEPIECE = KINDS = ("none", "bpe", "sentencepiece")
# Names under which the file of the subwords is kept.
SUBWORD_FILES = {BPE: "codes", SENTENCEPIECE: "sentencepiece.model"}


@dataclass(frozen=True)
class Subwords:
    """How tokens are split into subwords.

    Attributes:
        kind: one of KINDS.
        file: its merges or model, beside `pipeline.json`; empty if there is none.
        digest: of that file.
    """

    kind: str = NONE
    file: str = ""
    digest: str = ""


@dataclass(frozen=True)
class Pipeline:
    """The content of `pipeline.json`.

    Attributes:
        source_lang, target_lang: as the data-bin names them.
        text: how a line is normalised and tokenised.
        subwords: how tokens are split.
        corpus, published: title of the corpus and where it is published; empty if unknown.
        format: version of the file.
    """

    source_lang: str
    target_lang: str
    text: Text = Text()
    subwords: Subwords = Subwords()
    corpus: str = ""
    published: str = ""
    format: int = FORMAT

    def in_order(self, langs: tuple[str | None, str | None]) -> "Pipeline":
        """The same, in the direction of a training; a data-bin serves both.

        Args:
            langs: source and target of the training; ignored unless they are these two languages.
        """
        if set(langs) != {self.source_lang, self.target_lang}:
            return self
        return dataclasses.replace(self, source_lang=langs[0], target_lang=langs[1])


def describe_subwords(kind: str, file: str | PathLike | None = None) -> Subwords:
    """Subwords of a kind, one of KINDS, whose merges or model are in a file of any name."""
    return Subwords(kind, SUBWORD_FILES.get(kind, ""), digest_files([file]) if file else "")


def load(folder: str | PathLike) -> Pipeline | None:
    """Read the pipeline of a folder; None if it has none.

    Raises:
        UserError: the file is damaged, or that of the subwords is missing or another one.
    """
    folder = Path(folder)
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        table = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON ({error}): copy it again") from None
    if not isinstance(table, dict):
        raise UserError(f"{path} is not a JSON object: copy it again")
    pipeline = build(Pipeline, table, str(path))
    _check(pipeline, path)
    return pipeline


def _check(pipeline: Pipeline, path: Path) -> None:
    subwords = pipeline.subwords
    if pipeline.format != FORMAT:
        raise UserError(
            f"{path} has format {pipeline.format}, and this version reads {FORMAT}: install the "
            "version that wrote it"
        )
    if subwords.kind not in KINDS or (subwords.kind != NONE) != bool(subwords.file):
        raise UserError(
            f"{path}: subwords: the kind must be one of {', '.join(KINDS)}, with a file unless it "
            f"is {NONE}, not {subwords.kind!r}"
        )
    if not subwords.file:
        return
    file = path.parent / subwords.file
    if Path(subwords.file).name != subwords.file or not file.is_file():
        raise UserError(f"{path} names {subwords.file}, which is not beside it: copy both")
    if digest_files([file]) != subwords.digest:
        raise UserError(f"{file} is not the file that {path} was written for: copy both again")


def save(pipeline: Pipeline, folder: str | PathLike, file: str | PathLike | None = None) -> None:
    """Write `pipeline.json` and the file of the subwords to a folder, each atomically.

    Args:
        file: where the file of the subwords is now.
    """
    folder = Path(folder)
    if file is not None and not _same(file, folder / pipeline.subwords.file):
        with atomic_path(folder / pipeline.subwords.file) as temporary:
            shutil.copyfile(file, temporary)
    with atomic_text(folder / FILE) as handle:
        json.dump(_hyphenated(dataclasses.asdict(pipeline)), handle, indent=1, ensure_ascii=False)
        handle.write("\n")


def _same(one: str | PathLike, other: Path) -> bool:
    return other.exists() and os.path.samefile(one, other)


def _hyphenated(table: Mapping[str, Any]) -> dict[str, Any]:
    """A dataclass as a table whose keys have hyphens, as in recipes; `replace` has languages."""
    return {
        key.replace("_", "-"): _hyphenated(value)
        if isinstance(value, dict) and key != "replace"
        else value
        for key, value in table.items()
    }


def subword_file(pipeline: Pipeline, folder: str | PathLike) -> Path | None:
    """The path of the file of the subwords, or None if there is none."""
    return Path(folder) / pipeline.subwords.file if pipeline.subwords.file else None


def copy_with_dictionaries(
    data: str | PathLike,
    folder: str | PathLike,
    langs: tuple[str | None, str | None] = (None, None),
) -> bool:
    """Copy the pipeline and the two dictionaries of a data-bin, so that weights need nothing else.

    Files that are equal are left alone, and those of an earlier pipeline are replaced, with a
    warning. `pipeline.json` comes last.

    Args:
        data: the data-bin.
        folder: where to; created if necessary.
        langs: source and target of the training, see `Pipeline.in_order`.
    Returns:
        whether the data-bin has a pipeline. If not, nothing is copied.
    Raises:
        UserError: its pipeline is damaged, or `folder` has a foreign file of the same name.
    """
    data, folder = Path(data), Path(folder)
    pipeline = load(data)
    if pipeline is None:
        return False
    pipeline = pipeline.in_order(langs)
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"dict.{lang}.txt" for lang in (pipeline.source_lang, pipeline.target_lang)]
    names += filter(None, [pipeline.subwords.file])
    others = [n for n in names if (folder / n).exists() and not _equal(data / n, folder / n)]
    if others and not (folder / FILE).exists():
        raise UserError(f"{folder / others[0]} is not that of {data}: move it away")
    if others:
        logger.warning(
            f"{', '.join(others)} in {folder} were those of other data, and are now those of "
            f"{data}: older checkpoints there cannot be translated with them"
        )
    for name in names:
        if not _equal(data / name, folder / name):
            with atomic_path(folder / name) as temporary:
                shutil.copyfile(data / name, temporary)
    save(pipeline, folder)
    return True


def copy(source: str | PathLike, target: str | PathLike) -> None:
    """Copy the pipeline of a folder that has one to another folder."""
    described = load(source)
    if described is not None:
        save(described, target, subword_file(described, source))


def _equal(one: Path, other: Path) -> bool:
    """Whether two files have the same content."""
    return other.is_file() and digest_files([one]) == digest_files([other])


class TextCodec:
    """Encodes raw text as subwords of the source, and decodes subwords of the target.

    The methods are named as those of fairseq's hub interface.

    Args:
        pipeline: what to do.
        file: of the subwords; None if there is none.
    Raises:
        UserError: the file is not one of subwords.
    """

    def __init__(self, pipeline: Pipeline, file: Path | None) -> None:
        self.pipeline, self.file = pipeline, file
        self._split, self._join = _subword_functions(pipeline.subwords.kind, file)
        text = pipeline.text
        lang = text.moses_language or pipeline.target_lang
        self._detokenise = detokeniser(lang) if text.tokenise else str

    def tokenize(self, text: str) -> str:
        """Tokens of a raw source line, separated by blanks."""
        options, lang = self.pipeline.text, self.pipeline.source_lang
        return to_tokens(normalise(text, options, lang), options, lang)

    def apply_bpe(self, tokens: str) -> str:
        """Subwords of tokens."""
        return self._split(tokens)

    def remove_bpe(self, subwords: str) -> str:
        """Tokens of subwords."""
        return self._join(subwords)

    def detokenize(self, tokens: str) -> str:
        """Target text of tokens."""
        return self._detokenise(tokens)

    def encode(self, text: str) -> str:
        """Source subwords of a raw line, separated by blanks."""
        return self.apply_bpe(self.tokenize(text))

    def encode_target(self, text: str) -> str:
        """Target subwords of raw text, separated by blanks."""
        options, lang = self.pipeline.text, self.pipeline.target_lang
        return self.apply_bpe(to_tokens(normalise(text, options, lang), options, lang))

    def decode(self, subwords: str) -> str:
        """Target text of subwords, in one line."""
        return self.detokenize(self.remove_bpe(subwords))


def load_codec(
    folder: str | PathLike, langs: tuple[str | None, str | None] = (None, None)
) -> TextCodec | None:
    """The codec of a folder's pipeline, or None if it has none; errors as in `load`.

    Args:
        langs: see `Pipeline.in_order`.
    """
    pipeline = load(folder)
    if pipeline is None:
        return None
    return TextCodec(pipeline.in_order(langs), subword_file(pipeline, folder))


def _subword_functions(
    kind: str, file: Path | None
) -> tuple[Callable[[str], str], Callable[[str], str]]:
    """Functions from tokens to subwords and back."""
    if kind == BPE:
        return _read(file, load_codes), remove_bpe
    if kind == SENTENCEPIECE:
        check_sentencepiece()
        return _read(file, load_sentencepiece), _join_pieces
    return str, str


def _join_pieces(text: str) -> str:
    """Text of SentencePiece pieces, as fairseq's --bpe sentencepiece joins them."""
    return text.replace(" ", "").replace("\u2581", " ").strip()


def _read(file: Path, reader: Callable[[Path], Any]) -> Any:
    """What a library reads from a file of subwords.

    Raises:
        UserError: it cannot; subword-nmt exits where a line is wrong.
    """
    try:
        return reader(file)
    except (ValueError, IndexError, RuntimeError, SystemExit) as error:
        raise UserError(f"{file} does not hold subwords ({error}): give the right file") from None
