"""By what means training is made fast, each of which can be left out to see what it gives."""

from contextlib import contextmanager
from typing import NamedTuple


class TrainingMeans(NamedTuple):
    """The means of the engine; none of them changes what is computed, but for its round-off."""

    dropout: bool
    single: bool
    share: bool
    pack: bool
    chunk: bool


ENGINE = TrainingMeans(True, True, True, True, True)
PLAIN = TrainingMeans(False, False, False, False, False)

GIVES = {
    "dropout": "dropout masks from 16-bit random numbers, with which residuals are added (CPU)",
    "single": "attention of half-precision tensors in float32 (CPU)",
    "share": "one projection of the sources for both passes of self-conditioning",
    "pack": "what acts on each target token alone computed for real positions only",
    "chunk": "what logits cost with those of a few tokens at a time",
}


def only(name):
    """One of the means alone."""
    return PLAIN._replace(**{name: True})


@contextmanager
def training_by(means, *modules):
    """Within the context, the parts of these modules train by these means."""
    parts = [p for module in modules for p in module.modules() if hasattr(p, "means")]
    before = [part.means for part in parts]
    for part in parts:
        part.means = means
    try:
        yield
    finally:
        for part, own in zip(parts, before):
            part.means = own
