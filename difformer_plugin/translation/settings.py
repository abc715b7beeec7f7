"""What the user of a trained model chooses."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from difformer_plugin.data import pipeline
from difformer_plugin.data.pipeline import Pipeline, describe_subwords
from difformer_plugin.errors import UserError

MOSES, NONE = TOKENISERS = ("moses", "none")


@dataclass(frozen=True)
class TextOptions:
    """Options that replace parts of a pipeline, or all of one that is missing.

    Attributes:
        source_lang, target_lang: languages.
        tokenizer: one of TOKENISERS.
        bpe_codes, sentencepiece_model: the subwords; the codes may be "none".
    """

    source_lang: str | None = None
    target_lang: str | None = None
    tokenizer: str | None = None
    bpe_codes: str | None = None
    sentencepiece_model: str | None = None

    def subword_file(self) -> Path | None:
        """The file of the subwords that is named, or None."""
        named = self.sentencepiece_model or self.bpe_codes
        return Path(named) if named and named != NONE else None


@dataclass(frozen=True)
class Settings:
    """The model, and the options with which it translates.

    Attributes:
        model: a checkpoint or a folder.
        data: folder of dictionaries and pipeline; None to look beside the weights.
        text: see there.
        teacher: checkpoint of a teacher that chooses among candidates.
        decoding: options of decoding, by name.
        decoding_settings: file of further ones; None for that beside an exported model.
        seed: of the noise.
        use_ema: whether to take the moving average of the weights.
        cpu: whether to leave a GPU alone.
    """

    model: Path
    data: Path | None = None
    text: TextOptions = TextOptions()
    teacher: Path | None = None
    decoding: Mapping[str, Any] = field(default_factory=dict)
    decoding_settings: Path | None = None
    seed: int = 1
    use_ema: bool = False
    cpu: bool = False


def apply_text_options(
    found: Pipeline | None, folder: Path, options: TextOptions, langs: tuple[str, str]
) -> tuple[Pipeline, Path | None]:
    """The pipeline of a folder with the user's options.

    Args:
        found: the pipeline of the folder; None if it has none.
        langs: the languages of the model.
    Returns:
        the pipeline, and the file of its subwords.
    Raises:
        UserError: there is no pipeline, and the options do not say all of it; or a file is missing.
    """
    if options.bpe_codes and options.sentencepiece_model:
        raise UserError("--bpe-codes and --sentencepiece-model exclude each other: choose one")
    file, named = options.subword_file(), options.bpe_codes or options.sentencepiece_model
    if file is not None and not file.is_file():
        option = "--bpe-codes" if options.bpe_codes else "--sentencepiece-model"
        raise UserError(f"{option} {file}: no such file")
    missing = [] if options.tokenizer else ["--tokenizer moses or none"]
    missing += [] if named else ["--bpe-codes FILE or none"]
    if found is None and missing:
        raise UserError(
            f"{folder} has no {pipeline.FILE}, which says how text is tokenised: give "
            f"{' and '.join(missing)}, as in training (`difformer prepare` writes the file)"
        )
    found = found or Pipeline(*langs)
    changed: dict[str, Any] = dict(zip(("source_lang", "target_lang"), langs))
    if options.tokenizer:
        changed["text"] = replace(found.text, tokenise=options.tokenizer == MOSES)
    if not named:
        return replace(found, **changed), pipeline.subword_file(found, folder)
    kind = pipeline.NONE
    if file is not None:
        kind = pipeline.SENTENCEPIECE if options.sentencepiece_model else pipeline.BPE
    return replace(found, **changed, subwords=describe_subwords(kind, file)), file
