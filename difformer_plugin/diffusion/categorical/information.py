"""Schedules by information: alpha-bar_t chosen so that I(x_t; x_0) falls linearly (D3PM, Sec. 3.2).

Which alpha-bar that takes depends on the process and on the unigram distribution of the data.
"""

from collections.abc import Callable

import torch

from difformer_plugin.diffusion.schedules import Tabulated


def entropy(distribution: torch.Tensor) -> torch.Tensor:
    """H in nats, a scalar."""
    return -torch.xlogy(distribution, distribution).sum()


def uniform_information(alpha_bar: torch.Tensor, unigram: torch.Tensor) -> torch.Tensor:
    """I(x_t; x_0) in nats for uniform transitions (D3PM, App. A.7).

    With p the distribution of x_0, that of x_t is alpha-bar p + (1 - alpha-bar) / n. Given x_0 it
    is alpha-bar + (1 - alpha-bar) / n on x_0 and (1 - alpha-bar) / n on each other type. Types
    with the same frequency, as most types of a vocabulary have, are computed once.

    Args:
        alpha_bar: float64 (P,); unigram: float64 (n,), a distribution.
    Returns:
        float64 (P,).
    """
    count = len(unigram)
    other = (1 - alpha_bar) / count
    same = alpha_bar + other
    conditional = -(torch.xlogy(same, same) + (count - 1) * torch.xlogy(other, other))
    values, types = unigram.unique(return_counts=True)
    marginal = alpha_bar[:, None] * values + other[:, None]
    return -(types * torch.xlogy(marginal, marginal)).sum(-1) - conditional


def equal_information(
    information: Callable[[torch.Tensor], torch.Tensor],
    unigram: torch.Tensor,
    points: int = 257,
    iterations: int = 60,
) -> torch.Tensor:
    """alpha-bar at evenly spaced times so that I(x_t; x_0) = (1 - t) H(x_0) (D3PM, Sec. 3.2).

    By bisection, at all times at once.

    Args:
        information: I(x_t; x_0) in nats as a function of alpha-bar (P,); it rises with alpha-bar.
        unigram: float64 (n,), the distribution of x_0.
    Returns:
        float64 (points,), from 1 at time 0 to 0 at time 1.
    """
    times = torch.linspace(0, 1, points, dtype=torch.float64)
    wanted = (1 - times[1:-1]) * entropy(unigram)
    too_high, too_low = torch.ones_like(wanted), torch.zeros_like(wanted)
    for _ in range(iterations):
        middle = (too_high + too_low) / 2
        exceeds = information(middle) > wanted
        too_high = torch.where(exceeds, middle, too_high)
        too_low = torch.where(exceeds, too_low, middle)
    one, zero = torch.tensor([[1.0], [0.0]], dtype=torch.float64)
    return torch.cat([one, (too_high + too_low) / 2, zero])


def uniform_mutual_information(unigram: torch.Tensor) -> Tabulated:
    """The mutual-information schedule of the uniform process.

    Args:
        unigram: float64 (n,), the distribution of x_0.
    """
    return Tabulated(equal_information(lambda a: uniform_information(a, unigram), unigram))
