"""By what means decoding is made fast, each of which can be left out to see what it gives."""

from typing import NamedTuple


class Means(NamedTuple):
    """The means of the engine; all of them give the same output.

    Attributes:
        share: keys and values of a source are projected once, for all its candidates and steps.
        pack: what acts on each token alone is computed for real positions only.
        chunk: a batch is decoded in pieces that a processor's caches hold, sorted by length.
        count: MBR counts the n-grams of all candidates in tensors.
    """

    share: bool
    pack: bool
    chunk: bool
    count: bool


ENGINE = Means(True, True, True, True)
PLAIN = Means(False, False, False, False)
