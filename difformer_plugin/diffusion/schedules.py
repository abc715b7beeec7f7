"""Noise schedules: functions from t in [0, 1] to alpha-bar, and their discretisation."""

import math
from functools import lru_cache

import numpy as np

from difformer_plugin.errors import UserError

MAX_BETA = 0.999


def linear(t):
    """exp(-(20 - 0.1)/2 t^2 - 0.1 t): the linear beta schedule of Ho et al. (2020), continuous."""
    return math.exp(-(20 - 0.1) / 2 * t**2 - 0.1 * t)


def cosine(t):
    """cos^2((t + s)/(1 + s) pi/2) with s = 0.008 (Nichol and Dhariwal, 2021)."""
    return math.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2


def sqrt(t):
    """1 - sqrt(t + 0.0001) (Li et al., 2022)."""
    return 1 - math.sqrt(t + 0.0001)


def _karras(t, sigma_min, sigma_max, rho=7):
    """1 / (1 + sigma(t)^2), sigma(t)^(1/rho) going evenly from sigma_min to sigma_max."""
    low, high = sigma_min ** (1 / rho), sigma_max ** (1 / rho)
    return 1 / (1 + (low + t * (high - low)) ** (2 * rho))


def edm(t):
    """Karras et al. (2022): sigma from 0.002 to 80, rho = 7."""
    return _karras(t, 0.002, 80)


def cdcd(t):
    """The range of Dieleman et al. (2022) on Karras' curve: sigma from 1 to 300, rho = 7."""
    return _karras(t, 1, 300)


SCHEDULES = {f.__name__: f for f in (linear, cosine, sqrt, edm, cdcd)}


def get_schedule(name):
    """The schedule called `name`; a UserError names the known ones if there is none."""
    if name not in SCHEDULES:
        raise UserError(f"unknown noise schedule '{name}': choose one of {', '.join(SCHEDULES)}")
    return SCHEDULES[name]


def rescale_variance_preserving(alpha_bar, factor):
    """Eq. 8: alpha-bar' = alpha-bar / (alpha-bar + F^2 beta-bar), which divides the SNR by F^2.

    Args:
        alpha_bar: function t -> alpha-bar.
        factor: the rescaling factor F.
    Returns:
        function t -> alpha-bar'.
    """

    def rescaled(t):
        a = alpha_bar(t)
        return a / (a + factor**2 * (1 - a))

    return rescaled


def discretise(alpha_bar, steps):
    """alpha-bar_t for t = 0 .. steps - 1, as the product of 1 - beta_t.

    beta_t = min(1 - alpha-bar((t + 1)/T) / alpha-bar(t/T), 0.999).

    Args:
        alpha_bar: function t in [0, 1] -> alpha-bar.
        steps: T, the number of diffusion steps.
    Returns:
        float64 array (T,), decreasing.
    """
    values = [alpha_bar(t / steps) for t in range(steps + 1)]
    betas = [min(1 - after / before, MAX_BETA) for before, after in zip(values, values[1:])]
    return np.cumprod(1 - np.array(betas, dtype=np.float64))


@lru_cache(maxsize=16)
def alphas_cumprod(name, steps, factor=1.0):
    """The discretised schedule `name`; `factor` rescales it first in the variance-preserving form.

    Returns:
        float64 array (steps,), read-only, since it is kept for the next call.
    """
    alpha_bar = get_schedule(name)
    if factor != 1.0:
        alpha_bar = rescale_variance_preserving(alpha_bar, factor)
    series = discretise(alpha_bar, steps)
    series.setflags(write=False)
    return series
