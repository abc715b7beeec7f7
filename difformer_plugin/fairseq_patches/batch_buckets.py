"""--num-batch-buckets works with NumPy 2.

Fault: padding sentence pairs to a few lengths calls `numpy.percentile` with `interpolation` and
reads `numpy.compat`, both of which NumPy has removed.

Patch: `get_buckets` calls it with `method`. `LanguagePairDataset` is built without buckets, and
gets them afterwards as its constructor would have made them.

Other tasks: their --num-batch-buckets works as well.

Drop it: when fairseq is free of both.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np
from fairseq.data import (
    BucketPadLengthDataset,
    LanguagePairDataset,
    bucket_pad_length_dataset,
    data_utils,
)


def get_buckets(sizes: Any, num_buckets: int) -> np.ndarray:
    """The upper bounds of at most `num_buckets` buckets that hold about equally many of `sizes`."""
    percentages = np.linspace(0, 100, num_buckets + 1)
    return np.unique(np.percentile(sizes, percentages, method="lower")[1:])


def pad_to_buckets(dataset: Any, num_buckets: int) -> None:
    """Pad the sources and targets of a LanguagePairDataset to a few lengths each."""
    dataset.src = BucketPadLengthDataset(
        dataset.src, dataset.src_sizes, num_buckets, dataset.src_dict.pad(), dataset.left_pad_source
    )
    dataset.src_sizes = dataset.src.sizes
    if dataset.tgt is not None:
        dataset.tgt = BucketPadLengthDataset(
            *(dataset.tgt, dataset.tgt_sizes, num_buckets),
            *(dataset.tgt_dict.pad(), dataset.left_pad_target),
        )
        dataset.tgt_sizes = dataset.tgt.sizes
    dataset.bucketed_num_tokens = dataset.num_tokens_vec(np.arange(len(dataset.src)))
    # None: as many sentences of this length as --max-tokens allows.
    dataset.buckets = [(None, length) for length in np.unique(dataset.bucketed_num_tokens)]


def _with_buckets(original: Callable) -> Callable:
    @wraps(original)
    def __init__(self: Any, *args: Any, num_buckets: int = 0, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        if num_buckets > 0:
            pad_to_buckets(self, num_buckets)

    return __init__


def install() -> None:
    """Replace `get_buckets`, in both modules that call it, and `LanguagePairDataset.__init__`."""
    data_utils.get_buckets = bucket_pad_length_dataset.get_buckets = get_buckets
    LanguagePairDataset.__init__ = _with_buckets(LanguagePairDataset.__init__)
