"""By what means training is made fast, each of which can be left out to see what it gives."""

from contextlib import contextmanager
from typing import NamedTuple


class TrainingMeans(NamedTuple):
    """The means of the engine; none of them changes what is computed, but for its round-off.

    Attributes:
        dropout: masks come from 16-bit random numbers, and residuals are added with them (CPU).
        single: attention of half-precision tensors is computed in float32 (CPU).
        share: both passes of self-conditioning read one projection of the sources.
        pack: what acts on each target token alone is computed for real positions only.
        chunk: the anchor loss holds the logits of a few tokens at a time.
    """

    dropout: bool
    single: bool
    share: bool
    pack: bool
    chunk: bool


ENGINE = TrainingMeans(True, True, True, True, True)
PLAIN = TrainingMeans(False, False, False, False, False)


@contextmanager
def training_by(means, *modules):
    """Within the context, the parts of these modules train by these means."""
    parts = [p for module in modules for p in module.modules() if hasattr(p, "means")]
    for part in parts:
        part.means = means
    try:
        yield
    finally:
        for part in parts:
            del part.means  # back to its class's
