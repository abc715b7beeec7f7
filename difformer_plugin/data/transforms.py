"""Transforms of a chunk of sentence pairs, run by the worker processes of `resumable_pass`.

Each is a picklable function from a list of entries to (rows, counts): the rows to write, and how
many pairs were removed for each reason.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from difformer_plugin.data.cleaning import is_empty, normalise, to_tokens, unfit
from difformer_plugin.data.recipe import Clean, Recipe
from difformer_plugin.data.tokenisation import load_codes, load_sentencepiece
from difformer_plugin.errors import UserError


@dataclass(frozen=True)
class Tokenise:
    """Tokenise (place, source text, target text).

    A row is (source tokens, target tokens, source text, target text). In train, empty and unfit
    pairs are removed.

    Raises:
        UserError: a line of valid or test is empty; these are scored line by line.
    """

    recipe: Recipe
    split: str
    langs: tuple[str, str]

    def __call__(self, entries: list[tuple]) -> tuple[list[tuple[str, ...]], Counter]:
        rows, counts = [], Counter()
        for place, *texts in entries:
            pair = [
                to_tokens(normalise(text, self.recipe.text, lang), self.recipe.text, lang)
                for text, lang in zip(texts, self.langs, strict=True)
            ]
            reason = self._reason(place, texts, pair)
            if reason is None:
                # The untouched text, without what other readers take for the end of a line.
                rows.append((*pair, *(" ".join(text.splitlines()) for text in texts)))
            else:
                counts[reason] += 1
        return rows, counts

    def _reason(self, place: Any, texts: list[str], pair: list[str]) -> str | None:
        """Why a pair is removed, or None if it stays."""
        empty = [i for i in (0, 1) if is_empty(texts[i]) or not pair[i]]
        if self.split == "train":
            clean, (left, right) = self.recipe.clean, pair
            if empty:
                return "empty"
            return unfit(left, right, clean) if clean.units == "tokens" else None
        if empty:
            raw, number = place[empty[0]]
            raise UserError(
                f"{raw}, line {number}: empty, and {self.split} is scored line by line; remove it "
                "on both sides"
            )
        return None


@dataclass(frozen=True)
class SplitWords:
    """Split (source tokens, target tokens) into subwords; remove pairs that are then unfit.

    Args:
        codes: path of the BPE merges or the SentencePiece model; None keeps whole words.
        clean: the bounds; None keeps all pairs.
        sentencepiece: whether `codes` is a model of SentencePiece.
    """

    codes: str | None
    clean: Clean | None
    sentencepiece: bool = False

    def __call__(self, entries: list[tuple[str, str]]) -> tuple[list[tuple[str, ...]], Counter]:
        rows: list[tuple[str, ...]] = []
        counts: Counter = Counter()
        load = _load_sentencepiece if self.sentencepiece else _load_codes
        split = load(self.codes) if self.codes else str
        for source, target in entries:
            left, right = split(source), split(target)
            reason = unfit(left, right, self.clean) if self.clean else None
            if reason is None:
                rows.append((left, right))
            else:
                counts[reason] += 1
        return rows, counts


_load_codes: Callable[[str], Callable[[str], str]] = lru_cache(maxsize=1)(load_codes)
_load_sentencepiece: Callable[[str], Callable[[str], str]] = lru_cache(maxsize=1)(
    load_sentencepiece
)
