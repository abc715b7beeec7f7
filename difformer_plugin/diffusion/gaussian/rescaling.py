"""Noise rescaling: the coefficients under a factor F, and the search for F (Eq. 3, Eq. 8, App. D).

NumPy and SciPy only.
"""

import math
from dataclasses import dataclass
from functools import cache

import numpy as np

from difformer_plugin.diffusion.gaussian.degeneration import LEAST_SCALE, degeneration_scores
from difformer_plugin.diffusion.schedules import alphas_cumprod, get_schedule
from difformer_plugin.errors import UserError

SEARCH_STEP = 0.5  # Delta F of Algorithm 1
LEAST_STEP = 1e-3
LARGEST_FACTOR = 10_000.0
PRECISION = 1e-3  # relative, of a factor found by bisection


def default_stride(diffusion_steps):
    """Every 32nd step of 2000, and as much of any other number.

    The paper does not say which time steps its DGS is a mean of. This choice gives Table 2 within
    0.01, all 51 entries of Table 19 within a search step or 10 %, and Tables 14 and 17 within a
    search step (`difformer factor --table` prints where they differ).
    """
    return max(1, round(diffusion_steps * 32 / 2000))


def check_factor(factor, option="--rescaling-factor"):
    """A rescaling factor must be above 0, and of a size that numbers can stand the square of."""
    if not 0 < factor <= 1 / LEAST_SCALE:
        raise UserError(f"{option} must be above 0 and at most {1 / LEAST_SCALE:g}, not {factor:g}")


@dataclass(frozen=True)
class NoiseSeries:
    """A schedule at the time steps that the DGS is a mean of: 0, n, 2n, ... of the T steps.

    Attributes:
        schedule: a name in `schedules.SCHEDULES`.
        diffusion_steps: T.
        vp_rf: rescale in the variance-preserving form (Eq. 8, before discretising) and not Eq. 3.
        stride: n; None for `default_stride`.
    """

    schedule: str = "sqrt"
    diffusion_steps: int = 2000
    vp_rf: bool = False
    stride: int | None = None

    def __post_init__(self):
        get_schedule(self.schedule)
        if self.diffusion_steps < 2:
            raise UserError(f"--diffusion-steps must be at least 2, not {self.diffusion_steps}")
        if self.stride is not None and not 1 <= self.stride < self.diffusion_steps:
            raise UserError(
                f"every n-th time step: n must lie between 1 and {self.diffusion_steps - 1}, not "
                f"{self.stride}"
            )

    @property
    def timesteps(self):
        """int64 array, the time steps."""
        stride = self.stride or default_stride(self.diffusion_steps)
        return np.arange(0, self.diffusion_steps, stride)

    def coefficients(self, factor=1.0):
        """alpha-bar' and beta-bar' under the factor F, two float64 arrays."""
        check_factor(factor)
        if self.vp_rf:
            alpha_bar = alphas_cumprod(self.schedule, self.diffusion_steps, factor)[self.timesteps]
            return alpha_bar, 1 - alpha_bar
        alpha_bar = alphas_cumprod(self.schedule, self.diffusion_steps)[self.timesteps]
        return alpha_bar, factor**2 * (1 - alpha_bar)


def dgs(series, factor, vocab_size, latent_dim, sigma=1.0, classifier="definition1"):
    """DGS (Definition 2) of normal embeddings under the factor F: the mean of DGS_t.

    Args:
        series: a NoiseSeries; the others as for `degeneration_scores`.
    """
    coefficients = series.coefficients(factor)
    scores = degeneration_scores(*coefficients, vocab_size, latent_dim, sigma, classifier)
    return float(scores.mean())


def search_factor(score, max_dgs, step=SEARCH_STEP, largest=LARGEST_FACTOR):
    """The least F = 1, 1 + step, 1 + 2 step, ... whose score is at most `max_dgs` (Algorithm 1).

    The score is taken to fall as F grows, so that bisection finds what Algorithm 1's walk would.

    Args:
        score: function F -> DGS.
        step: 0 looks at all numbers from 1 on.
    Returns:
        F and its score.
    Raises:
        UserError: no factor up to `largest` reaches `max_dgs`.
    """
    if not 0 < max_dgs <= 1:
        raise UserError(f"--max-dgs must lie in (0, 1], not {max_dgs:g}")
    if not (step == 0 or LEAST_STEP <= step <= largest):
        raise UserError(f"the search step must be 0 or from {LEAST_STEP:g} on, not {step:g}")
    found = score(1.0)
    if found <= max_dgs:
        return 1.0, found
    low, high = 1.0, 1.0 + (8 * step or 4.0)
    while (found := score(high)) > max_dgs:
        if high >= largest:
            raise UserError(
                f"no rescaling factor up to {high:g} brings the degeneration score down to "
                f"{max_dgs:g} (there it is {found:.3g}): choose a greater --max-dgs"
            )
        low, high = high, 1.0 + 2 * (high - 1.0)
    if step == 0:
        return meet(score, max_dgs, low, high)
    while high - low > 1.5 * step:
        middle = 1.0 + step * round((low + high - 2.0) / (2 * step))
        score_there = score(middle)
        if score_there > max_dgs:
            low = middle
        else:
            high, found = middle, score_there
    return high, found


def meet(score, max_dgs, low, high):
    """The factor at which a falling score comes down to `max_dgs`, within 0.1 %, and its score.

    By Brent's safeguarded bisection, which asks for a third of the scores that bisection does.

    Args:
        score: function F -> DGS, above `max_dgs` at `low` and not at `high`.
    """
    from scipy.optimize import brentq

    score = cache(score)
    # over log F the score is closer to a line; at the ends it is asked for the very same factors
    ends = {math.log(low): low, math.log(high): high}

    def excess(log_factor):
        return score(ends.get(log_factor) or math.exp(log_factor)) - max_dgs

    factor = math.exp(brentq(excess, *ends, xtol=PRECISION / 4))
    while (found := score(factor)) > max_dgs:
        factor = min(factor * (1 + PRECISION / 4), high)
    return factor, found
