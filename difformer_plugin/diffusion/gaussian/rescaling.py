"""Noise rescaling: coefficients under a factor F, and the search for F (Eq. 3, Eq. 8, App. D).

Needs NumPy and SciPy only.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

from difformer_plugin.diffusion.gaussian.degeneration import MIN_SIGMA, degeneration_scores
from difformer_plugin.diffusion.parameters import ParameterError
from difformer_plugin.diffusion.positional_schedules import (
    POSITIONAL_SCHEDULES,
    TYPICAL_LENGTH,
    check_gaussian_schedule,
)
from difformer_plugin.diffusion.schedules import alpha_bar_series, rescale_alpha_bar

MAX_VALID_FACTOR = 1 / MIN_SIGMA  # whose square is still a harmless number
SEARCH_STEP = 0.5  # Delta F of Algorithm 1
MIN_SEARCH_STEP = 1e-3
MAX_SEARCHED_FACTOR = 10_000.0
PRECISION = 1e-3  # relative, of a factor found by bisection


def default_stride(diffusion_steps: int) -> int:
    """Every 32nd of 2000 time steps, and the same share of any other number of steps.

    The paper does not say which time steps its DGS is the mean of. With this choice Table 2 agrees
    within 0.01, all 51 entries of Table 19 within a search step or 10 %, and Tables 14 and 17
    within a search step (`difformer factor --table` prints the differences).
    """
    return max(1, round(diffusion_steps * 32 / 2000))


def check_factor(factor: float) -> None:
    """Raise a ParameterError unless F is above 0 and at most MAX_VALID_FACTOR."""
    if not 0 < factor <= MAX_VALID_FACTOR:
        raise ParameterError(
            "rescaling_factor",
            f"must be above 0 and at most {MAX_VALID_FACTOR:g}",
            f"{factor:g}",
        )


@dataclass(frozen=True)
class NoiseSeries:
    """The time steps that the DGS is the mean of, t = 0, n, 2n, ..., and their coefficients.

    Where the schedule depends on the position, it is the mean over the positions of a target too.

    Attributes:
        schedule: name of a schedule of Gaussian diffusion.
        diffusion_steps: T.
        vp_rf: rescale in the variance-preserving form (Eq. 8, before discretising), not by Eq. 3.
        stride: n; None for `default_stride`.
        target_length: M, the tokens of the target, for a position-dependent schedule; None for
            TYPICAL_LENGTH.
    Raises:
        ParameterError: a value is out of its range.
    """

    schedule: str = "sqrt"
    diffusion_steps: int = 2000
    vp_rf: bool = False
    stride: int | None = None
    target_length: int | None = None

    def __post_init__(self):
        check_gaussian_schedule(self.schedule)
        if self.diffusion_steps < 2:
            raise ParameterError("diffusion_steps", "must be at least 2", self.diffusion_steps)
        if self.stride is not None and not 1 <= self.stride < self.diffusion_steps:
            raise ParameterError(
                "stride", f"must lie between 1 and {self.diffusion_steps - 1}", self.stride
            )
        if self.target_length is not None and not self.positional:
            raise ParameterError(
                "target_length",
                f"is for the noise schedule {', '.join(POSITIONAL_SCHEDULES)}",
                f"for '{self.schedule}'",
            )
        if self.target_length is not None and self.target_length < 1:
            raise ParameterError("target_length", "must be at least 1", self.target_length)

    @property
    def positional(self) -> bool:
        """Whether the schedule depends on the position."""
        return self.schedule in POSITIONAL_SCHEDULES

    @property
    def positions(self) -> int:
        """The positions that each time step has coefficients of: M, or 1."""
        return (self.target_length or TYPICAL_LENGTH) if self.positional else 1

    def draws(self, samples: int) -> int:
        """The draws of each coefficient if `samples` of a time step are divided among positions."""
        return math.ceil(samples / self.positions)

    def by_time(self, values: np.ndarray) -> np.ndarray:
        """The mean over the positions of a value of each coefficient, (steps,)."""
        return np.asarray(values).reshape(-1, self.positions).mean(1)

    @property
    def timesteps(self) -> np.ndarray:
        """The time steps, an int64 array."""
        stride = self.stride or default_stride(self.diffusion_steps)
        return np.arange(0, self.diffusion_steps, stride)

    def coefficients(self, factor: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
        """alpha-bar' and beta-bar' under the factor F, two float64 arrays (steps x positions,).

        All positions of a time step come one after another.
        """
        check_factor(factor)
        if self.positional:
            times = (self.timesteps[:, None] + 1.0) / self.diffusion_steps
            positions, length = np.arange(1.0, self.positions + 1), np.float64(self.positions)
            alpha_bar = POSITIONAL_SCHEDULES[self.schedule](times, positions, length).flatten()
            if self.vp_rf:
                alpha_bar = rescale_alpha_bar(alpha_bar, factor)
            return alpha_bar, (1.0 if self.vp_rf else factor**2) * (1 - alpha_bar)
        if self.vp_rf:
            series = alpha_bar_series(self.schedule, self.diffusion_steps, factor)
            alpha_bar = series[self.timesteps]
            return alpha_bar, 1 - alpha_bar
        alpha_bar = alpha_bar_series(self.schedule, self.diffusion_steps)[self.timesteps]
        return alpha_bar, factor**2 * (1 - alpha_bar)


def dgs(
    series: NoiseSeries,
    factor: float,
    vocab_size: int,
    latent_dim: int,
    sigma: float = 1.0,
    classifier: str = "definition1",
) -> float:
    """DGS (Definition 2) of normal embeddings under the factor F: the mean of DGS_t over `series`.

    For a position-dependent schedule it is the mean over steps and positions.

    The other arguments are those of `degeneration_scores`.
    """
    coefficients = series.coefficients(factor)
    scores = degeneration_scores(*coefficients, vocab_size, latent_dim, sigma, classifier)
    return float(scores.mean())


def search_factor(
    score: Callable[[float], float],
    max_dgs: float,
    step: float = SEARCH_STEP,
    largest: float = MAX_SEARCHED_FACTOR,
) -> tuple[float, float]:
    """The least F = 1, 1 + step, 1 + 2 step, ... whose score is at most `max_dgs` (Algorithm 1).

    The score is assumed to fall as F grows, so that bisection finds the F of Algorithm 1.

    Args:
        score: function F -> DGS.
        max_dgs: DGS_MAX.
        step: Delta F; 0 considers all numbers from 1 on.
        largest: no greater F is searched for.
    Returns:
        F and its score.
    Raises:
        ParameterError: no factor up to `largest` reaches `max_dgs`, or a value is out of its range.
    """
    if not 0 < max_dgs <= 1:
        raise ParameterError("max_dgs", "must lie in (0, 1]", f"{max_dgs:g}")
    if not (step == 0 or MIN_SEARCH_STEP <= step <= largest):
        raise ParameterError(
            "search_step",
            f"must be 0 or lie between {MIN_SEARCH_STEP:g} and {largest:g}",
            f"{step:g}",
        )
    found = score(1.0)
    if found <= max_dgs:
        return 1.0, found
    most = 1.0 + step * math.floor((largest - 1.0) / step + 1e-9) if step else largest
    low, high = 1.0, min(1.0 + (8 * step or 4.0), most)
    while (found := score(high)) > max_dgs:
        if high >= most:
            # rounded up, so that the value that the message asks for is accepted
            least = math.ceil(found * 1000) / 1000
            raise ParameterError(
                "max_dgs",
                f"must be at least {least:g}, the degeneration score at the greatest rescaling "
                f"factor tried ({high:g})",
                f"{max_dgs:g}",
            )
        low, high = high, min(1.0 + 2 * (high - 1.0), most)
    if step == 0:
        return solve_for_factor(score, max_dgs, low, high)
    while high - low > 1.5 * step:
        middle = 1.0 + step * round((low + high - 2.0) / (2 * step))
        score_there = score(middle)
        if score_there > max_dgs:
            low = middle
        else:
            high, found = middle, score_there
    return high, found


def solve_for_factor(
    score: Callable[[float], float], max_dgs: float, low: float, high: float
) -> tuple[float, float]:
    """The F in [low, high] at which a falling score reaches `max_dgs`, within 0.1 %, and its score.

    By Brent's method, which evaluates a third of the scores that bisection does.

    Args:
        score: function F -> DGS, above `max_dgs` at `low` and not above it at `high`.
        max_dgs: DGS_MAX.
    """
    from scipy.optimize import brentq

    score = cache(score)
    # over log F the score is closer to a line; exp(log(F)) need not be F, so the ends are looked up
    ends = {math.log(low): low, math.log(high): high}

    def excess(log_factor):
        return score(ends.get(log_factor) or math.exp(log_factor)) - max_dgs

    factor = math.exp(brentq(excess, *ends, xtol=PRECISION / 4))
    while (found := score(factor)) > max_dgs:
        factor = min(factor * (1 + PRECISION / 4), high)
    return factor, found
