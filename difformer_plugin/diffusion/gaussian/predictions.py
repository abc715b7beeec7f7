"""What a network may predict: z_0, the noise, or the mean of the posterior. All say the same.

Given z_t they are linear in each other: q = a z_0 + b z_t, with coefficients that depend on the
time alone. So a squared error of q is a^2 times that of z_0, and the Kullback-Leibler divergence of
the reverse step from the posterior is another multiple of it (Ho et al., 2020, Eq. 8).
"""

from collections.abc import Callable

import numpy as np

from difformer_plugin.diffusion.gaussian.process import ScalarProcess

Coefficients = tuple[np.ndarray, np.ndarray]  # a and b at each of the T steps, float64 (T,)


def _z_0(process: ScalarProcess) -> Coefficients:
    """z_0 itself."""
    return np.ones(len(process)), np.zeros(len(process))


def _epsilon(process: ScalarProcess) -> Coefficients:
    """epsilon = (z_t - sqrt(alpha-bar_t) z_0) / (F sqrt(1 - alpha-bar_t))."""
    deviation = process.noise_scale * np.sqrt(1 - process.alphas_cumprod)
    return -np.sqrt(process.alphas_cumprod) / deviation, 1 / deviation


def _mean(process: ScalarProcess) -> Coefficients:
    """The mean of q(z_s | z_t, z_0), xi z_0 + lambda z_t (App. B), s being the step before t."""
    xi, lam, _ = process.posterior_coefficients
    return xi, lam


PREDICTIONS: dict[str, Callable[[ScalarProcess], Coefficients]] = {
    "z_0": _z_0,
    "epsilon": _epsilon,
    "mean": _mean,
}


def kl_weights(process: ScalarProcess) -> np.ndarray:
    """KL(q(z_s | z_t, z_0) || q(z_s | z_t, z_0-hat)) / ||z_0 - z_0-hat||^2, float64 (T,).

    It is xi^2 / (2 F^2 beta-tilde). The variance of the first step is 0; it is clipped to that of
    the second (Nichol and Dhariwal, 2021).
    """
    xi, _, log_variance = process.posterior_coefficients
    return xi**2 / (2 * process.noise_scale**2 * np.exp(log_variance))
