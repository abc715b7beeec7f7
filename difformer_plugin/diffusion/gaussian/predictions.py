"""What a network may predict: z_0, the noise, or the mean of the posterior. All say the same.

Given z_t they are linear in each other: q = a z_0 + b z_t, with coefficients that depend on the
time, and with some schedules on the position. So a squared error of q is a^2 times that of z_0, and
the Kullback-Leibler divergence of the reverse step from the posterior is another multiple of it (Ho
et al., 2020, Eq. 8).
"""

from collections.abc import Callable

import torch

from difformer_plugin.diffusion.gaussian.process import (
    GaussianProcess,
    Places,
    posterior_moments,
)

Coefficients = tuple[torch.Tensor, torch.Tensor]  # a and b, float64 (N, 1)


def _z_0(process: GaussianProcess, t: torch.Tensor, layout: Places) -> Coefficients:
    """z_0 itself."""
    ones = torch.ones_like(process.alpha_bar(t, layout))
    return ones, torch.zeros_like(ones)


def _epsilon(process: GaussianProcess, t: torch.Tensor, layout: Places) -> Coefficients:
    """epsilon = (z_t - sqrt(alpha-bar_t) z_0) / (F sqrt(1 - alpha-bar_t))."""
    alpha_bar = process.alpha_bar(t, layout)
    deviation = process.noise_scale * (1 - alpha_bar).sqrt()
    return -alpha_bar.sqrt() / deviation, 1 / deviation


def _mean(process: GaussianProcess, t: torch.Tensor, layout: Places) -> Coefficients:
    """The mean of q(z_s | z_t, z_0), xi z_0 + lambda z_t (App. B), s being the step before t."""
    xi, lam, _ = _moments(process, t, layout)
    return xi, lam


# t: int64 (n,), the step of each candidate among all T; layout: of their N tokens
PREDICTIONS: dict[str, Callable[[GaussianProcess, torch.Tensor, Places], Coefficients]] = {
    "z_0": _z_0,
    "epsilon": _epsilon,
    "mean": _mean,
}


def kl_weights(process: GaussianProcess, t: torch.Tensor, layout: Places) -> torch.Tensor:
    """KL(q(z_s | z_t, z_0) || q(z_s | z_t, z_0-hat)) / ||z_0 - z_0-hat||^2, float64 (N, 1).

    It is xi^2 / (2 F^2 beta-tilde). The variance of the first step is 0; it is clipped to that of
    the second (Nichol and Dhariwal, 2021).

    Args:
        t: int64 (n,), the step of each candidate.
    """
    xi = _moments(process, t, layout)[0]
    variance = _moments(process, t.clamp(min=1), layout)[2]
    return xi.square() / (2 * process.noise_scale**2 * variance)


def _moments(
    process: GaussianProcess, t: torch.Tensor, layout: Places
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """xi, lambda and beta-tilde of tokens, each float64 (N, 1); see `posterior_moments`."""
    first = (t == 0)[layout.rows][:, None]
    before = process.alpha_bar((t - 1).clamp(min=0), layout).masked_fill(first, 1.0)
    return posterior_moments(process.alpha_bar(t, layout), before)
