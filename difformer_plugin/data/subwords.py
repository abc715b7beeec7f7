"""Learn the joint subwords of a corpus, and note what the user should know of them."""

import json
import os
from pathlib import Path

from difformer_plugin.data import pipeline
from difformer_plugin.data.recipe import Recipe
from difformer_plugin.data.tokenisation import learn_codes, learn_sentencepiece
from difformer_plugin.storage.files import atomic_text

NOTES = "notes.json"


def subword_kind(recipe: Recipe) -> str:
    """One of `pipeline.KINDS`."""
    if recipe.sentencepiece:
        return pipeline.SENTENCEPIECE
    return pipeline.BPE if recipe.bpe_merges else pipeline.NONE


def learn_subwords(recipe: Recipe, work: Path, langs: tuple[str, str]) -> Path | None:
    """Learn the subwords on the training tokens, where this is not done yet.

    Args:
        work: folder of unfinished work, with tokens/train.LANG; the result goes to text/.
    Returns:
        the file of the merges or of the model; None for whole words.
    Raises:
        UserError: there is too little text for these subwords.
    """
    kind = subword_kind(recipe)
    if kind == pipeline.NONE:
        return None
    file = work / "text" / pipeline.SUBWORD_FILES[kind]
    if file.exists():
        return file
    tokens = [work / "tokens" / f"train.{lang}" for lang in langs]
    unfinished = work / "subwords"
    if kind == pipeline.SENTENCEPIECE:
        wanted = recipe.sentencepiece
        learned = learn_sentencepiece(tokens, unfinished, wanted)
        note = f"SentencePiece found only {learned:,} of {wanted:,} pieces in the training text"
    else:
        wanted = recipe.bpe_merges
        learned = learn_codes(tokens, unfinished, wanted)
        note = (
            f"the training text is so small that BPE found {learned:,} of {wanted:,} merges: then "
            "no pair of symbols occurred twice. The data can be used as it is, but nearly every "
            "word has become a single token, rare ones too. Fewer merges split rare words into "
            f"parts that others share: --bpe-merges {max(1, learned // 2)}, in a new --out"
        )
    with atomic_text(work / NOTES) as handle:
        json.dump([note] if learned < wanted else [], handle)
    os.replace(unfinished, file)
    return file


def notes_of(work: Path) -> list[str]:
    """What `learn_subwords` has noted, in sentences."""
    path = work / NOTES
    return json.loads(path.read_text("utf-8")) if path.exists() else []
