"""Draws from categorical distributions, each decided by one uniform number of its own."""

import torch


def draw(weights, u):
    """One state from each distribution, by the inverse of its cumulative distribution function.

    Args:
        weights: (M, S), not negative, of any positive sum.
        u: (M,), uniform in [0, 1).
    Returns:
        int64 (M,); never a state of weight 0.
    """
    cumulative = weights.double().cumsum(-1)
    # even 1 - 2^-53, the largest u, times the sum rounds to less than the sum: a state is beyond it
    target = u.double() * cumulative[:, -1]
    return torch.searchsorted(cumulative, target[:, None], right=True)[:, 0]


def sharpen(log_probs, temperature):
    """Distributions at a temperature: softmax(log_probs / temperature), all on the best at 0.

    Args:
        log_probs: (M, S), not necessarily normalised.
    """
    if temperature == 0:
        best = log_probs.argmax(-1, keepdim=True)
        return torch.zeros_like(log_probs).scatter_(1, best, 1.0)
    return (log_probs / temperature).softmax(-1)


def draw_type(u, count):
    """One of `count` types, all equally likely: int64 (M,) from uniform numbers (M,)."""
    return (u.double() * count).long()
