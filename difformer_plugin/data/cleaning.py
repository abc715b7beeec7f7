"""Normalisation and tokenisation of a line, and the filter on training pairs."""

import re
import string
import unicodedata
from functools import lru_cache

from difformer_plugin.data.recipe import Clean, Text
from difformer_plugin.data.tokenisation import tokeniser

# What the Moses tokeniser deletes; some readers take some of these for the end of a line.
CONTROL = re.compile(r"[\x00-\x1f]")


def is_empty(text: str) -> bool:
    """Whether the tokeniser would return nothing."""
    return not CONTROL.sub("", text).strip()


def remove_control(text: str) -> str:
    """Replace characters of Unicode's categories C (control, format, unassigned) by spaces."""
    return "".join(" " if unicodedata.category(letter)[0] == "C" else letter for letter in text)


BRACKETS = "()[]{}<>"
KEPT = frozenset(string.ascii_letters + string.digits + " " + string.punctuation) - set(BRACKETS)


def to_ascii(text: str) -> str:
    """Remove accents, and then all but ASCII's letters, digits, spaces and punctuation marks.

    Brackets are removed too. Any white space becomes a space.
    """
    letters = unicodedata.normalize("NFKD", text)
    return "".join(" " if c.isspace() else c for c in letters if c in KEPT or c.isspace())


@lru_cache(maxsize=4)
def _punctuation(lang):
    from sacremoses import MosesPunctNormalizer

    return MosesPunctNormalizer(lang=lang)


def normalise(text: str, options: Text, lang: str) -> str:
    """Normalise a line before it is tokenised.

    Args:
        text: the line.
        options: of the recipe.
        lang: language of the line, by its name in the recipe.
    """
    if options.normalise_punctuation:
        text = _punctuation(options.moses_language or lang).normalize(text)
    if options.remove_control:
        text = remove_control(text)
    for old, new in options.replace.get(lang, {}).items():
        text = text.replace(old, new)
    return to_ascii(text) if options.ascii else text


_tokeniser = lru_cache(maxsize=4)(tokeniser)


def to_tokens(text: str, options: Text, lang: str) -> str:
    """Tokens of a normalised line, joined by single spaces; arguments as in `normalise`."""
    if options.tokenise:
        tokenise = _tokeniser(options.moses_language or lang, options.aggressive_dash_splits)
        text = tokenise(text)
    else:
        text = " ".join(text.split())
    return text.lower() if options.lowercase else text


def unfit(left: str, right: str, clean: Clean) -> str | None:
    """Why a pair is removed from the training text, or None if it stays.

    The bounds are inclusive, as in Moses' `clean-corpus-n.perl`.

    Args:
        left, right: tokens or subwords, separated by spaces.
        clean: the bounds of the recipe.
    Returns:
        the reason under which removed pairs are counted.
    """
    lengths = len(left.split()), len(right.split())
    if 0 in lengths:
        return "empty"
    if min(lengths) < clean.min:
        return "too short"
    if clean.max and max(lengths) > clean.max:
        return "too long"
    if clean.ratio and max(lengths) > clean.ratio * min(lengths):
        return "lengths too different"
    return None
