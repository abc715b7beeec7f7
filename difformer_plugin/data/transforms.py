"""What is done to each chunk of a text on its way to subwords; the workers of `preparation`."""

from collections import Counter
from dataclasses import dataclass
from functools import lru_cache

from difformer_plugin.data.cleaning import is_empty, normalise, to_tokens, unfit
from difformer_plugin.data.tokenisation import load_codes
from difformer_plugin.errors import UserError


@dataclass(frozen=True)
class Tokenise:
    """(place, source text, target text) -> rows of tokens, and the text itself, of what stays."""

    recipe: object
    split: str
    langs: tuple

    def __call__(self, entries):
        rows, counts = [], Counter()
        for place, *texts in entries:
            pair = [
                to_tokens(normalise(text, self.recipe.text, lang), self.recipe.text, lang)
                for text, lang in zip(texts, self.langs, strict=True)
            ]
            reason = self._reason(place, texts, pair)
            if reason is None:
                # a line must stay one to every reader
                rows.append((*pair, *(" ".join(text.splitlines()) for text in texts)))
            else:
                counts[reason] += 1
        return rows, counts

    def _reason(self, place, texts, pair):
        """Why a pair is left out of train; in the other splits, where all are scored, an error."""
        empty = [i for i in (0, 1) if is_empty(texts[i]) or not pair[i]]
        if self.split == "train":
            clean = self.recipe.clean
            return "empty" if empty else unfit(*pair, clean) if clean.units == "tokens" else None
        if empty:
            raw, number = place[empty[0]]
            raise UserError(
                f"{raw}, line {number}: empty, and {self.split} is scored line by line; remove it "
                "on both sides"
            )
        return None


@dataclass(frozen=True)
class SplitWords:
    """(source tokens, target tokens) -> the same in subwords, without what is unfit."""

    codes: str | None
    clean: object

    def __call__(self, entries):
        rows, counts = [], Counter()
        split = _bpe(self.codes) if self.codes else str
        for pair in entries:
            pair = tuple(map(split, pair))
            reason = unfit(*pair, self.clean) if self.clean else None
            if reason is None:
                rows.append(pair)
            else:
                counts[reason] += 1
        return rows, counts


@lru_cache(maxsize=1)
def _bpe(path):
    return load_codes(path)
