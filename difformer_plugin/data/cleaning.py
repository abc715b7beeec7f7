"""What a line goes through on its way to tokens, and which pairs stay."""

import re
import unicodedata
from functools import lru_cache

# What the Moses tokeniser deletes, and what a line-by-line reader may take for the end of a line.
CONTROL = re.compile(r"[\x00-\x1f]")


def is_empty(text):
    """Whether the tokeniser would leave nothing of the text."""
    return not CONTROL.sub("", text).strip()


def remove_control(text):
    """Replace characters of Unicode's categories C (control, format, unassigned) by a space."""
    return "".join(" " if unicodedata.category(letter)[0] == "C" else letter for letter in text)


@lru_cache(maxsize=4)
def _punctuation(lang):
    from sacremoses import MosesPunctNormalizer

    return MosesPunctNormalizer(lang=lang)


def normalise(text, options, lang):
    """A line before it is tokenised.

    Args:
        options: a recipe's Text.
        lang: the line's language, as the recipe calls it.
    """
    if options.normalise_punctuation:
        text = _punctuation(options.moses_language or lang).normalize(text)
    if options.remove_control:
        text = remove_control(text)
    for old, new in options.replace.get(lang, {}).items():
        text = text.replace(old, new)
    return text


@lru_cache(maxsize=4)
def _moses(lang, dashes):
    from difformer_plugin.data.tokenisation import tokeniser

    return tokeniser(lang, dashes)


def to_tokens(text, options, lang):
    """Tokens of a normalised line, joined by single spaces; arguments as of `normalise`."""
    if options.tokenise:
        tokenise = _moses(options.moses_language or lang, options.aggressive_dash_splits)
        text = tokenise(text)
    else:
        text = " ".join(text.split())
    return text.lower() if options.lowercase else text


def unfit(left, right, clean):
    """Why a pair of token strings does not stay in the training text, or None.

    `clean-corpus-n.perl` of Moses counts as this does: both bounds and the ratio belong to what
    stays.

    Args:
        clean: a recipe's Clean.
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
