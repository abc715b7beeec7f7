"""Draws from categorical distributions, each from one uniform number."""

import torch


def draw(weights: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
    """One state from each distribution, by inverting its cumulative distribution function.

    Args:
        weights: (M, S), not negative, of any positive sum.
        u: (M,), uniform in [0, 1).
    Returns:
        int64 (M,); never a state of weight 0.
    """
    cumulative = weights.double().cumsum(-1)
    # even the largest u, 1 - 2^-53, times the sum rounds to less than the sum, so a state is found
    target = u.double() * cumulative[:, -1]
    return torch.searchsorted(cumulative, target[:, None], right=True)[:, 0]


def sharpen(log_probs: torch.Tensor, temperature: float) -> torch.Tensor:
    """softmax(log_probs / temperature); at temperature 0 all the probability is on the best state.

    Args:
        log_probs: (M, S), not necessarily normalised.
    """
    if temperature == 0:
        best = log_probs.argmax(-1, keepdim=True)
        return torch.zeros_like(log_probs).scatter_(1, best, 1.0)
    return (log_probs / temperature).softmax(-1)


def draw_type(u: torch.Tensor, types: int) -> torch.Tensor:
    """One of `types` equally likely types: int64 (M,), from uniform numbers (M,)."""
    return (u.double() * types).long()
