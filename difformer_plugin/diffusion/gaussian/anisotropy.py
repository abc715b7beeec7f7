"""Measures of an embedding table."""

import torch


def anisotropy(embeddings):
    """ANI, the mean cosine between the embeddings of different tokens (Sec. 3.1).

    The sum over all pairs of unit vectors is the squared length of their sum, so no V x V matrix
    is needed.

    Args:
        embeddings: (V, D), no row zero.
    Returns:
        float, about 0 for isotropic and 1 for collapsed embeddings; 0 where V < 2.
    """
    count = len(embeddings)
    if count < 2:
        return 0.0
    unit = torch.nn.functional.normalize(embeddings.detach().double(), dim=-1)
    return ((unit.sum(0).square().sum() - unit.square().sum()) / (count * (count - 1))).item()
