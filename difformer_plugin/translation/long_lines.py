"""Split lines that are too long for a model: at sentence ends, and further only where needed."""

import re
from collections.abc import Callable, Iterator, Sequence

# Where a line may be split, the best places first. A closing quote belongs to its sentence.
ENDS = (
    re.compile(r"[.!?…]+[\"'”’»)\]]*\s+|[。！？]+[”’」』）]*\s*"),
    re.compile(r"[;:,]\s+|[；：，、]\s*"),
    re.compile(r"\s+"),
)
Size = Callable[[str], int]


def split_line(text: str, size: Size, limit: int) -> list[str]:
    """Split a line into parts of a limited size, of neighbouring sentences as far as they fit.

    A sentence that is too long is split at commas and the like, then between words, then anywhere.

    Args:
        size: number of subwords of a text.
        limit: greatest size of a part.
    Returns:
        the parts without the space around them; joined, they have all other characters of the line.
    """
    parts: list[str] = []
    waiting: list[str] = []
    total = 0
    for piece, number in _pieces(text, size, limit, 0):
        if total + number > limit:
            parts += _pack(waiting, size, limit)
            waiting, total = [], 0
        waiting.append(piece)
        total += number
    parts += _pack(waiting, size, limit)
    return [part.strip() for part in parts if part.strip()]


def _pieces(text: str, size: Size, limit: int, level: int) -> Iterator[tuple[str, int]]:
    """Pieces that fit, with their sizes; joined they are the text."""
    number = size(text)
    if number <= limit or len(text) < 2:
        yield text, number
        return
    if level == len(ENDS):
        half = len(text) // 2
        parts: Sequence[str] = (text[:half], text[half:])
    else:
        cuts = [0, *(end.end() for end in ENDS[level].finditer(text)), len(text)]
        parts = [text[start:end] for start, end in zip(cuts, cuts[1:]) if start < end]
        level += 1
    for part in parts:
        yield from _pieces(part, size, limit, level)


def _pack(pieces: Sequence[str], size: Size, limit: int) -> list[str]:
    """Join pieces; in halves if together they have more subwords than each has alone."""
    text = "".join(pieces)
    if len(pieces) < 2 or size(text) <= limit:
        return [text]
    half = len(pieces) // 2
    return _pack(pieces[:half], size, limit) + _pack(pieces[half:], size, limit)
