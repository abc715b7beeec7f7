"""Times of a training batch, for all families."""

import torch


def low_discrepancy(start: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
    """Evenly spread uniform numbers of a batch: (start + i / B) mod 1, in a random order (MDLM).

    Each of them is uniform; together they are a stratified sample.

    Args:
        start: a uniform number, (1,); order: a permutation of 0 .. B - 1, (B,).
    """
    return (start + order / len(order)) % 1
