"""Decoding speed-ups. All are on by default; the benchmark switches them on one at a time."""

from typing import NamedTuple


class Speedups(NamedTuple):
    """What makes the engine fast; none of it changes the output.

    Attributes:
        share: keys and values of a source are projected once for all its candidates and steps.
        pack: what acts on each token alone is computed for real positions only.
        chunk: a batch is decoded in pieces that fit a processor's caches, sorted by length.
        count: MBR counts the n-grams of all candidates in tensors.
    """

    share: bool
    pack: bool
    chunk: bool
    count: bool  # type: ignore[assignment]  # a tuple has a method of this name


ENGINE = Speedups(True, True, True, True)
PLAIN = Speedups(False, False, False, False)
