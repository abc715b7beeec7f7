"""A training of fairseq's Levenshtein Transformer without its CUDA library says so once.

Fault: fairseq looks for `libnat_cuda` twice in every batch, and prints a line each time that it has
to fall back to `libnat`. The packages on PyPI have `libnat` alone.

Patch: what was found is kept.

Other tasks: only this model uses the function.

Drop it: when fairseq looks once.
"""

from functools import cache

from fairseq.models.nat import levenshtein_utils


def install() -> None:
    """Replace `load_libnat`."""
    levenshtein_utils.load_libnat = cache(levenshtein_utils.load_libnat)
