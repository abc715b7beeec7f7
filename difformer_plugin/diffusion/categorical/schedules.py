"""Noise schedules of discrete diffusion: alpha_t, the probability that a token is still there.

Time runs from 0 (data) to 1 (noise), and alpha from 1 to 0; a process of T steps sees it at i / T.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch

from difformer_plugin.errors import UserError


class Schedule:
    """alpha_t and its derivative, on float64 tensors of times in [0, 1]."""

    def alpha(self, t):
        """alpha_t, of the shape of t."""
        raise NotImplementedError

    def slope(self, t):
        """d alpha / dt, at most 0."""
        raise NotImplementedError

    def hazard(self, t):
        """-alpha' / (1 - alpha): the rate at which what is gone comes back, in reversed time."""
        return -self.slope(t) / (1 - self.alpha(t))

    def returning(self, s, t):
        """(alpha_s - alpha_t) / (1 - alpha_t): the probability that what is gone at t is not at s.

        For s < t; it is 1 at s = 0.
        """
        before, after = self.alpha(s), self.alpha(t)
        return (before - after) / (1 - after)


class LogLinear(Schedule):
    """alpha_t = 1 - t: the log-linear noise -log(1 - t) of SEDD; beta_t = 1 / (T - t + 1).

    For the absorbing process it is the mutual-information schedule as well (D3PM, Sec. 3.2).
    """

    def alpha(self, t):
        return 1 - t

    def slope(self, t):
        return -torch.ones_like(t)


class Cosine(Schedule):
    """cos^2((t + s) / (1 + s) pi / 2) with s = 0.008, over its value at 0 (Nichol and Dhariwal)."""

    S = 0.008

    def _angle(self, t):
        return (t + self.S) / (1 + self.S) * math.pi / 2

    def _start(self):
        return math.cos(self.S / (1 + self.S) * math.pi / 2) ** 2

    def alpha(self, t):
        return self._angle(t).cos().square() / self._start() * (t < 1)

    def slope(self, t):
        return -(2 * self._angle(t)).sin() * math.pi / 2 / (1 + self.S) / self._start()


class Linear(Schedule):
    """A rate that grows linearly from 0.1 to 20 (Ho et al., 2020), in continuous time.

    exp(-(0.1 t + 9.95 t^2)) ends at 4e-5 and not at 0; it is shifted and scaled by that much, so
    that nothing is left at the end.
    """

    START, END = 0.1, 20.0

    def _raw(self, t):
        return torch.exp(-(self.START * t + (self.END - self.START) / 2 * t**2))

    def _least(self):
        return math.exp(-(self.START + self.END) / 2)

    def alpha(self, t):
        return ((self._raw(t) - self._least()) / (1 - self._least())).clamp(min=0) * (t < 1)

    def slope(self, t):
        rate = self.START + (self.END - self.START) * t
        return -rate * self._raw(t) / (1 - self._least())


@dataclass(frozen=True, eq=False)
class Tabulated(Schedule):
    """alpha at evenly spaced times, straight lines between them.

    Attributes:
        values: float64 (P,), falling, from the time 0 to the time 1.
    """

    values: torch.Tensor

    def _piece(self, t):
        last = len(self.values) - 1
        place = t * last
        left = place.long().clamp(max=last - 1)
        values = self.values.to(t.device)
        return values[left], values[left + 1], place - left, last

    def alpha(self, t):
        before, after, part, _ = self._piece(t)
        return before + (after - before) * part

    def slope(self, t):
        before, after, _, last = self._piece(t)
        return (after - before) * last


@dataclass(frozen=True)
class Floored(Schedule):
    """Another schedule, squeezed to end at `floor` and not at 0, where a rate would be infinite."""

    schedule: Schedule
    floor: float

    def alpha(self, t):
        return self.floor + (1 - self.floor) * self.schedule.alpha(t)

    def slope(self, t):
        return (1 - self.floor) * self.schedule.slope(t)


MUTUAL_INFORMATION = "mutual_information"
SCHEDULES = {"linear": Linear, "cosine": Cosine, "log_linear": LogLinear}
NAMES = [*SCHEDULES, MUTUAL_INFORMATION]


def check_schedule(name):
    """Raise a UserError for what is no schedule of discrete diffusion."""
    if name not in NAMES:
        raise UserError(
            f"--noise-schedule {name}: discrete diffusion has no such schedule; there are "
            f"{', '.join(NAMES)}"
        )


def uniform_information(alpha, unigram):
    """I(x_t; x_0) in nats for uniform transitions (D3PM, App. A.7).

    With p the distribution of x_0, that of x_t is alpha p + (1 - alpha) / n, and given x_0 it is
    alpha + (1 - alpha) / n on x_0 and (1 - alpha) / n on each other type. Types that are equally
    frequent, as most of a vocabulary are, are computed once.

    Args:
        alpha: float64 (P,); unigram: float64 (n,), a distribution.
    Returns:
        float64 (P,).
    """
    count = len(unigram)
    other = (1 - alpha) / count
    same = alpha + other
    conditional = -(torch.xlogy(same, same) + (count - 1) * torch.xlogy(other, other))
    values, types = unigram.unique(return_counts=True)
    marginal = alpha[:, None] * values + other[:, None]
    return -(types * torch.xlogy(marginal, marginal)).sum(-1) - conditional


def entropy(distribution):
    """In nats."""
    return -torch.xlogy(distribution, distribution).sum()


def equal_information(information, unigram, least, most, points=257, rounds=60):
    """What makes I(x_t; x_0) = (1 - t) H(x_0) at evenly spaced times (D3PM, Sec. 3.2).

    Found by bisection at all times at once.

    Args:
        information: function of a parameter (P,) that falls as it goes from `least` to `most`.
        unigram: float64 (n,), the distribution of x_0.
    Returns:
        float64 (points,), the parameter; `least` at the time 0 and `most` at 1.
    """
    times = torch.linspace(0, 1, points, dtype=torch.float64)
    wanted = (1 - times[1:-1]) * entropy(unigram)
    low = torch.full_like(wanted, least)
    high = torch.full_like(wanted, most)
    for _ in range(rounds):
        middle = (low + high) / 2
        enough = information(middle) > wanted  # too little noise yet
        low, high = torch.where(enough, middle, low), torch.where(enough, high, middle)
    ends = torch.tensor([least, most], dtype=torch.float64)
    return torch.cat([ends[:1], (low + high) / 2, ends[1:]])


def mutual_information(unigram):
    """The mutual-information schedule of the uniform process, for the data's unigram distribution.

    Args:
        unigram: float64 (n,), a distribution.
    """
    return Tabulated(equal_information(lambda a: uniform_information(a, unigram), unigram, 1, 0))


def decoding_times(steps, decoding_steps):
    """The times of K steps, 0 = t_0 < ... < t_K = 1, float64 array (K + 1,).

    Args:
        steps: T, or None in continuous time.
    Raises:
        UserError: K is more than T.
    """
    if steps is None:
        return np.linspace(0, 1, decoding_steps + 1)
    if not 1 <= decoding_steps <= steps:
        raise UserError(
            f"--decoding-steps must lie between 1 and the model's {steps} diffusion steps, not "
            f"{decoding_steps}"
        )
    return np.round(np.arange(decoding_steps + 1) * (steps / decoding_steps)) / steps
