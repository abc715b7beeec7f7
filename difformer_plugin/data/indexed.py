"""How fairseq reads the binarised files of a split."""

from typing import Any

from fairseq.data.data_utils import load_indexed_dataset
from fairseq.data.indexed_dataset import infer_dataset_impl

# One format, read in two ways. fairseq reads it as `cached` by default, and then misses sentences
# that it has not prefetched.
CACHED, LAZY = "cached", "lazy"


def implementation(stem: str) -> str | None:
    """The value of --dataset-impl that reads a file, in which any sentence can be looked up.

    Args:
        stem: its path without .bin and .idx; None is returned if there is no such file.
    """
    found = infer_dataset_impl(stem)
    return LAZY if found == CACHED else found


def open_dataset(stem: str) -> Any:
    """One side of a split, as an indexed data set of fairseq; None if there is no such file."""
    return load_indexed_dataset(stem, None, implementation(stem))
