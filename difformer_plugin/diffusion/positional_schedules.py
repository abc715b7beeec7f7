"""Position-dependent noise schedules of Gaussian diffusion: alpha-bar of time, position and length.

All formulas of Gaussian diffusion hold position by position: a diagonal matrix of alpha-bars takes
the place of one number.

A new schedule is one function (t, k, M) -> alpha-bar under `register_positional_schedule`: t is the
time in (0, 1], 1 being noise; k is the position of a token, from 1; M is the number of tokens of
its target, BOS and EOS included. It falls in t and stays in (0, 1) up to the time 1. It takes
float64 arrays and tensors alike, which broadcast, so it uses `_normal_cdf` of this file and methods
that both have, such as `clip`. Positions beyond M, where padding is, have to give finite values.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from difformer_plugin.diffusion.parameters import ParameterError
from difformer_plugin.diffusion.schedules import GAUSSIAN, schedule_names

if TYPE_CHECKING:  # the rescaling factor is found without torch
    import torch

Values = TypeVar("Values", np.ndarray, "torch.Tensor")
PositionalSchedule = Callable[[Values, Values, Values], Values]

# A typical M, where no sentence says it: for the degeneration score.
TYPICAL_LENGTH = 20

POSITIONAL_SCHEDULES: dict[str, PositionalSchedule] = {}


def register_positional_schedule(function: PositionalSchedule) -> PositionalSchedule:
    """Decorator: add a function (t, k, M) -> alpha-bar, under its own name."""
    POSITIONAL_SCHEDULES[function.__name__] = function
    return function


def gaussian_schedule_names() -> list[str]:
    """The names of all schedules of Gaussian diffusion, the position-dependent ones last."""
    return [*schedule_names(GAUSSIAN), *POSITIONAL_SCHEDULES]


def check_gaussian_schedule(name: str) -> None:
    """Raise a ParameterError unless Gaussian diffusion has the schedule `name`."""
    names = gaussian_schedule_names()
    if name not in names:
        raise ParameterError("noise_schedule", f"must be one of {', '.join(names)}", f"'{name}'")


def _normal_cdf(x: Values) -> Values:
    """Phi, the distribution function of N(0, 1), accurate in its lower tail."""
    if isinstance(x, (float, np.ndarray)):
        from scipy.special import ndtr

        return ndtr(x)
    return 0.5 * (x * -(0.5**0.5)).erfc()


# In `positional`, the variance falls linearly below VARIANCE_CUTOFF = Phi(-VARIANCE_QUANTILE).
VARIANCE_CUTOFF, VARIANCE_QUANTILE = 0.02, 2.0537489106318225
# Phi(-20) is below 1e-88. Further down its argument is bent, so that it stays above -30: Phi of
# tokens far behind in a long target would be 0 as a double, which has no logarithm.
BENT_BELOW, BENT_BY = 20.0, 10.0


@register_positional_schedule
def positional(t: Values, k: Values, length: Values) -> Values:
    """Phi((1 - t - mu_k) / sigma): early tokens are noised last and denoised first.

    sigma = 1 / (M + 5) and mu_k = (3 + k) sigma for k = 1 .. M, so that tokens are noised one after
    another, with some overlap (Sec. 3.2.5, Eq. 3.3 of the thesis on joint sequences, 2023, which
    counts time from noise to data). Where the variance 1 - alpha-bar is below 0.02 it falls
    linearly to its value at time 0, and not exponentially.

    At time 1 the first token is 4 sigma away from its middle, and at time 0 the last one 2 sigma.
    """
    sigma = 1 / (length + 5.0)
    middle = 1 - (3 + k) * sigma  # the time at which alpha-bar is 1/2
    x = (middle - t) / sigma
    beyond = (-BENT_BELOW - x).clip(min=0)
    signal = _normal_cdf(x.clip(min=-BENT_BELOW) - beyond / (1 + beyond / BENT_BY))
    nearly_clean = (middle - VARIANCE_QUANTILE * sigma).clip(min=1e-12)  # the time of the cut-off
    at_0 = _normal_cdf(-middle / sigma)
    variance = at_0 + (VARIANCE_CUTOFF - at_0) * (t / nearly_clean).clip(max=1)
    linear = t < nearly_clean
    return linear * (1 - variance) + ~linear * signal
