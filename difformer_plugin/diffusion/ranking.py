"""Ranks of numbers within the rows of a packed batch."""

import torch


def rank_in_rows(values: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """The rank of each value among those of its row, from 0. Ties keep their order.

    Args:
        values: (N,); rows: int64 (N,), not falling.
    Returns:
        int64 (N,).
    """
    order = values.argsort(stable=True)
    order = order[rows[order].argsort(stable=True)]
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order), device=order.device)
    return rank - torch.searchsorted(rows, rows)
