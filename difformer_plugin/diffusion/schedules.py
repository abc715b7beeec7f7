"""Noise schedules for all families: alpha-bar_t, how much of the signal is left at time t.

Time runs from 0 (data) to 1 (noise). Gaussian diffusion keeps alpha-bar_t of the variance,
z_t ~ N(sqrt(alpha-bar_t) z_0, (1 - alpha-bar_t) I). Categorical diffusion keeps a token with
probability alpha-bar_t (alpha_t in the papers on masked diffusion).

A new schedule is one function t -> alpha-bar_t under `register_schedule`. It takes floats and
float64 tensors alike, so it uses `_exp`, `_cos` and `_square_root` of this file.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from difformer_plugin.diffusion.parameters import ParameterError

if TYPE_CHECKING:  # the rescaling factor is found without torch
    import torch

GAUSSIAN, CATEGORICAL = "gaussian", "categorical"  # the kinds of diffusion
MAX_BETA = 0.999
MIN_ALPHA_BAR = 1e-12

Time = TypeVar("Time", float, "torch.Tensor")
Values = TypeVar("Values", float, np.ndarray, "torch.Tensor")


class Schedule:
    """A falling function alpha-bar_t on [0, 1], and what follows from it.

    All methods take float64 tensors of times and return tensors of the same shape.
    """

    def alpha_bar(self, t: "torch.Tensor") -> "torch.Tensor":
        """alpha-bar_t."""
        raise NotImplementedError

    def derivative(self, t: "torch.Tensor") -> "torch.Tensor":
        """d alpha-bar_t / dt, at most 0: by autograd, where a subclass has no closed form."""
        import torch

        with torch.inference_mode(False), torch.enable_grad():
            t = t.detach().clone().requires_grad_()
            return torch.autograd.grad(self.alpha_bar(t).sum(), t)[0]

    def unmasking_rate(self, t: "torch.Tensor") -> "torch.Tensor":
        """-alpha-bar'_t / (1 - alpha-bar_t): the rate of unmasking in reversed time.

        It weights the cross-entropy of masks in continuous time (MDLM).
        """
        return -self.derivative(t) / (1 - self.alpha_bar(t))

    def unmasking_probability(self, s: "torch.Tensor", t: "torch.Tensor") -> "torch.Tensor":
        """(alpha-bar_s - alpha-bar_t) / (1 - alpha-bar_t), for s < t.

        It is the probability that a mask at t is a token at s, and 1 at s = 0.
        """
        before, after = self.alpha_bar(s), self.alpha_bar(t)
        return (before - after) / (1 - after)


@dataclass(frozen=True)
class Formula(Schedule):
    """A registered schedule, as its paper defines it.

    Attributes:
        function: t -> alpha-bar_t, on floats and float64 tensors.
        kinds: GAUSSIAN, CATEGORICAL or both: the kinds of diffusion that offer it.
        closed_derivative: its derivative, on tensors; None for autograd.
        of_information: the function is not alpha-bar_t but the share of the information about x_0
            that is left in x_t. The two are equal for absorbing processes; for others the data
            decide (`categorical.information`).
    """

    function: Callable[[Time], Time]
    kinds: tuple[str, ...]
    closed_derivative: "Callable[[torch.Tensor], torch.Tensor] | None" = None
    of_information: bool = False

    def alpha_bar(self, t: Time) -> Time:
        return self.function(t)

    def derivative(self, t: "torch.Tensor") -> "torch.Tensor":
        if self.closed_derivative is None:
            return super().derivative(t)
        return self.closed_derivative(t)

    def normalised(self) -> "Normalised":
        """The schedule as categorical diffusion needs it: alpha-bar_0 = 1 and alpha-bar_1 = 0."""
        return Normalised(self)


SCHEDULES: dict[str, Formula] = {}
Function = Callable[[Time], Time]
Derivative = Callable[["torch.Tensor"], "torch.Tensor"]


def register_schedule(
    *kinds: str, closed_derivative: Derivative | None = None, of_information: bool = False
) -> Callable[[Function], Function]:
    """Decorator: add a function t -> alpha-bar_t to SCHEDULES, under its own name.

    Args:
        The attributes of `Formula`.
    """

    def register(function: Function) -> Function:
        SCHEDULES[function.__name__] = Formula(function, kinds, closed_derivative, of_information)
        return function

    return register


def schedule_names(kind: str) -> list[str]:
    """The names of the schedules for GAUSSIAN or CATEGORICAL diffusion."""
    return [name for name, schedule in SCHEDULES.items() if kind in schedule.kinds]


def get_schedule(name: str, kind: str) -> Formula:
    """The schedule `name`, for GAUSSIAN or CATEGORICAL diffusion.

    Raises:
        ParameterError: there is none for this kind.
    """
    names = schedule_names(kind)
    if name not in names:
        raise ParameterError("noise_schedule", f"must be one of {', '.join(names)}", f"'{name}'")
    return SCHEDULES[name]


def _exp(x: Time) -> Time:
    return math.exp(x) if isinstance(x, float) else x.exp()


def _cos(x: Time) -> Time:
    return math.cos(x) if isinstance(x, float) else x.cos()


def _square_root(x: Time) -> Time:
    return math.sqrt(x) if isinstance(x, float) else x.sqrt()


def _linear_derivative(t):
    return -(0.1 + (20 - 0.1) * t) * linear(t)


@register_schedule(GAUSSIAN, CATEGORICAL, closed_derivative=_linear_derivative)
def linear(t: Time) -> Time:
    """exp(-(20 - 0.1)/2 t^2 - 0.1 t): the linear beta schedule of Ho et al. (2020), continuous."""
    return _exp(-(20 - 0.1) / 2 * t**2 - 0.1 * t)


def _cosine_angle(t):
    return (t + 0.008) / 1.008 * math.pi / 2


def _cosine_derivative(t):
    return -(2 * _cosine_angle(t)).sin() * math.pi / 2 / 1.008


@register_schedule(GAUSSIAN, CATEGORICAL, closed_derivative=_cosine_derivative)
def cosine(t: Time) -> Time:
    """cos^2((t + s)/(1 + s) pi/2) with s = 0.008 (Nichol and Dhariwal, 2021)."""
    return _cos(_cosine_angle(t)) ** 2


@register_schedule(GAUSSIAN)
def sqrt(t: Time) -> Time:
    """1 - sqrt(t + 0.0001) (Li et al., 2022)."""
    return 1 - _square_root(t + 0.0001)


@register_schedule(CATEGORICAL)
def log_linear(t: Time) -> Time:
    """1 - t: the log-linear noise -log(1 - t) of SEDD; beta_t = 1 / (T - t + 1) in T steps."""
    return 1 - t


@register_schedule(CATEGORICAL, of_information=True)
def mutual_information(t: Time) -> Time:
    """I(x_t; x_0) = (1 - t) H(x_0) (D3PM, Sec. 3.2); `log_linear` for the absorbing process."""
    return 1 - t


def _karras(t, sigma_min, sigma_max, rho=7):
    """1 / (1 + sigma(t)^2), where sigma(t)^(1/rho) grows linearly from sigma_min to sigma_max."""
    low, high = sigma_min ** (1 / rho), sigma_max ** (1 / rho)
    return 1 / (1 + (low + t * (high - low)) ** (2 * rho))


@register_schedule(GAUSSIAN)
def edm(t: Time) -> Time:
    """Karras et al. (2022): sigma from 0.002 to 80, rho = 7."""
    return _karras(t, 0.002, 80)


@register_schedule(GAUSSIAN)
def cdcd(t: Time) -> Time:
    """The range of Dieleman et al. (2022) on Karras' curve: sigma from 1 to 300, rho = 7.

    `discretise` divides by its value at time 0, which is 1/2: with T = 2000, sigma of a training
    runs from 0.07 to 212.
    """
    return _karras(t, 1, 300)


@dataclass(frozen=True)
class Normalised(Schedule):
    """A formula, shifted and scaled so that alpha-bar_0 = 1 and alpha-bar_1 = 0 exactly."""

    formula: Formula

    def _ends(self):
        return self.formula.alpha_bar(0.0), self.formula.alpha_bar(1.0)

    def alpha_bar(self, t: "torch.Tensor") -> "torch.Tensor":
        first, last = self._ends()
        return ((self.formula.alpha_bar(t) - last) / (first - last)).clamp(min=0) * (t < 1)

    def derivative(self, t: "torch.Tensor") -> "torch.Tensor":
        first, last = self._ends()
        return self.formula.derivative(t) / (first - last)


@dataclass(frozen=True, eq=False)
class Tabulated(Schedule):
    """alpha-bar at evenly spaced times, with linear interpolation between them.

    Attributes:
        values: float64 (P,), falling, from time 0 to time 1.
    """

    values: "torch.Tensor"

    def _segment(self, t):
        """The values at both ends of the segment of t, and the position of t in it, in [0, 1]."""
        num_segments = len(self.values) - 1
        position = t * num_segments
        left = position.long().clamp(max=num_segments - 1)
        values = self.values.to(t.device)
        return values[left], values[left + 1], position - left

    def alpha_bar(self, t: "torch.Tensor") -> "torch.Tensor":
        before, after, position = self._segment(t)
        return before + (after - before) * position

    def derivative(self, t: "torch.Tensor") -> "torch.Tensor":
        before, after, _ = self._segment(t)
        return (after - before) * (len(self.values) - 1)


@dataclass(frozen=True)
class Floored(Schedule):
    """floor + (1 - floor) alpha-bar_t: a schedule that ends above 0, where rates are finite."""

    schedule: Schedule
    floor: float

    def alpha_bar(self, t: "torch.Tensor") -> "torch.Tensor":
        return self.floor + (1 - self.floor) * self.schedule.alpha_bar(t)

    def derivative(self, t: "torch.Tensor") -> "torch.Tensor":
        return (1 - self.floor) * self.schedule.derivative(t)


def rescale_alpha_bar(alpha_bar: Values, factor: float) -> Values:
    """Eq. 8: alpha-bar' = alpha-bar / (alpha-bar + F^2 beta-bar), which divides the SNR by F^2."""
    return alpha_bar / (alpha_bar + factor**2 * (1 - alpha_bar))


def rescale_variance_preserving(
    alpha_bar: Callable[[float], float], factor: float
) -> Callable[[float], float]:
    """The function t -> alpha-bar' of a function t -> alpha-bar, by `rescale_alpha_bar`."""
    return lambda t: rescale_alpha_bar(alpha_bar(t), factor)


def discretise(alpha_bar: Callable[[float], float], steps: int) -> np.ndarray:
    """alpha-bar_t for t = 0 .. steps - 1, as the product of 1 - beta_t.

    beta_t = min(1 - alpha-bar((t + 1)/T) / alpha-bar(t/T), 0.999). The formula of sqrt is negative
    from t = 0.9999 on; alpha-bar is taken to be 1e-12 there.

    Args:
        alpha_bar: function t in [0, 1] -> alpha-bar.
        steps: T, the number of diffusion steps.
    Returns:
        float64 array (T,), decreasing.
    """
    values = [max(alpha_bar(t / steps), MIN_ALPHA_BAR) for t in range(steps + 1)]
    betas = [min(1 - after / before, MAX_BETA) for before, after in zip(values, values[1:])]
    return np.cumprod(1 - np.array(betas, dtype=np.float64))


@lru_cache(maxsize=16)
def alpha_bar_series(name: str, steps: int, factor: float = 1.0) -> np.ndarray:
    """alpha-bar at the T steps of Gaussian diffusion.

    Args:
        name: of a schedule for GAUSSIAN diffusion.
        steps: T.
        factor: F of the variance-preserving form (Eq. 8), applied before discretising.
    Returns:
        float64 array (T,), read-only because it is cached.
    Raises:
        ParameterError: there is no such schedule.
    """
    alpha_bar = get_schedule(name, GAUSSIAN).alpha_bar
    if factor != 1.0:
        alpha_bar = rescale_variance_preserving(alpha_bar, factor)
    series = discretise(alpha_bar, steps)
    series.setflags(write=False)
    return series
