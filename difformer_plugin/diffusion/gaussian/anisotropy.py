"""Measures of an embedding table."""

import torch


def anisotropy(embeddings: torch.Tensor) -> float:
    """ANI, the mean cosine between the embeddings of different tokens (Sec. 3.1).

    The inner products of all pairs of unit vectors sum to the squared length of their sum, so no
    V x V matrix is needed.

    Args:
        embeddings: (V, D), without zero rows.
    Returns:
        about 0 for isotropic and 1 for collapsed embeddings; 0 if V < 2.
    """
    count = len(embeddings)
    if count < 2:
        return 0.0
    unit = torch.nn.functional.normalize(embeddings.detach().double(), dim=-1)
    return ((unit.sum(0).square().sum() - unit.square().sum()) / (count * (count - 1))).item()
