"""Bayesian optimisation: the fastest settings of decoding whose loss of BLEU is small enough.

There are far too many settings to measure all. Two surrogates, one of the loss and one of the time,
are fitted to the measurements so far, and the settings with the greatest expected gain are measured
next, at first on a part of the sentences. The search ends when no further gain is expected. Only
settings that were measured on all sentences can win.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import ndtr

from difformer_plugin.tuning.settings import Settings, expected_work, features
from difformer_plugin.tuning.surrogate import Surrogate

MIN_GAIN = 0.01  # expected gain of log speed, below which nothing more is measured
EXPLORATION = 0.75  # share of the budget; the rest confirms what was measured on a part
TIME_ERROR = 0.1  # standard error of the logarithm of a time that was measured once
PRIOR_LOSS = 0.05  # BLEU that halving the work is expected to lose before anything is measured


class Measured(NamedTuple):
    """The result of decoding with some settings.

    Attributes:
        loss: BLEU of the reference settings minus that of these, on the same sentences.
        error: standard error of the loss.
        seconds: wall time of a sentence.
        whole: whether all sentences were decoded, not a part of them.
    """

    loss: float
    error: float
    seconds: float
    whole: bool


class Search:
    """The measurements so far, and what to measure next.

    The reference is measured at once, on all sentences.

    Args:
        space: all settings, the reference first.
        max_loss: BLEU that may be lost against the reference.
        measure: called with settings and whether to decode all sentences.
    Attributes:
        found: the measurement of each of the settings that were measured.
    """

    def __init__(
        self,
        space: Sequence[Settings],
        max_loss: float,
        measure: Callable[[Settings, bool], Measured],
    ) -> None:
        self.space, self.max_loss, self.measure = space, max_loss, measure
        samplers = list(dict.fromkeys(settings.sampler for settings in space))
        points = np.array([features(settings, samplers) for settings in space])
        points = points[:, np.ptp(points, axis=0) > 0]  # a constant feature tells nothing
        self.rows = {settings: row for row, settings in enumerate(space)}
        self.work = np.log([expected_work(settings) for settings in space])
        self.losses, self.times = Surrogate(points), Surrogate(points)
        self.prior_losses = PRIOR_LOSS * (self.work[0] - self.work) / np.log(2)
        self.found: dict[Settings, Measured] = {}
        self._measure(space[0], True)

    def most_promising(self, explore: bool = True) -> Settings | None:
        """The settings with the greatest expected gain; None if it is negligible.

        The expected gain is the logarithm of the speed gained over the best settings so far, times
        the probability that the loss is small enough.

        Source:
            Gardner et al. (2014), Bayesian Optimization with Inequality Constraints. There the gain
            is an expectation as well; times are too certain here for that to matter.
        Args:
            explore: consider settings that have not been measured at all.
        """
        losses, deviations, times = self._predict()
        probabilities = ndtr((_damped(self.max_loss) - losses) / deviations)
        gains = probabilities * np.maximum(times[self.rows[self.best()]] - times, 0)
        known = np.zeros(len(gains), bool)
        for settings, measured in self.found.items():
            known[self.rows[settings]] = True
            if measured.whole:
                gains[self.rows[settings]] = 0
        if not explore:
            gains[~known] = 0
        row = int(np.argmax(gains))
        return self.space[row] if gains[row] > MIN_GAIN else None

    def best(self) -> Settings:
        """The fastest settings whose loss, measured on all sentences, is small enough."""
        allowed = [
            settings
            for settings, measured in self.found.items()
            if measured.whole and measured.loss <= self.max_loss
        ]
        return min(allowed, key=lambda settings: self.found[settings].seconds)

    def front(self, whole: bool = False) -> list[Settings]:
        """The Pareto front of the measured settings by loss and time, the smallest loss first.

        Args:
            whole: only of those measured on all sentences.
        """
        front: list[Settings] = []
        for settings in sorted(
            self.found, key=lambda s: (self.found[s].loss, self.found[s].seconds)
        ):
            measured = self.found[settings]
            dominated = front and measured.seconds >= self.found[front[-1]].seconds
            if not dominated and (measured.whole or not whole):
                front.append(settings)
        return front

    def run(
        self,
        used: Callable[[], float],
        observe: Callable[[], None] = lambda: None,
        starts: Sequence[Settings] = (),
    ) -> None:
        """Search until no gain is expected any more, or the budget is used up.

        Args:
            used: returns the share of the budget that is used up.
            observe: called after each measurement.
            starts: settings of the space that are measured first, on a part of the sentences.
        """
        for settings in starts:
            if settings in self.rows and settings not in self.found and used() < EXPLORATION:
                self._measure(settings, whole=False)
                observe()
        while (share := used()) < 1:
            settings = self.most_promising(explore=share < EXPLORATION)
            if settings is None:
                return
            self._measure(settings, whole=settings in self.found)
            observe()

    def confirm(self, settings: Settings) -> None:
        """Measure settings on all sentences, unless that was done."""
        if not self.found[settings].whole:
            self._measure(settings, True)

    def _measure(self, settings, whole):
        self.found[settings] = self.measure(settings, whole)

    def _predict(self):
        """Damped losses, their standard deviations, and logarithms of seconds, (M,) each."""
        rows = [self.rows[settings] for settings in self.found]
        measured = list(self.found.values())
        errors = [m.error / (1 + abs(m.loss)) + 0.01 for m in measured]
        values = [_damped(m.loss) - self.prior_losses[row] for m, row in zip(measured, rows)]
        losses, deviations = self.losses.predict(rows, values, errors)
        losses += self.prior_losses
        prior_times = self.work - self.work[0] + np.log(measured[0].seconds)
        values = [np.log(m.seconds) - prior_times[row] for m, row in zip(measured, rows)]
        times, _ = self.times.predict(rows, values, np.full(len(rows), TIME_ERROR))
        return losses, deviations, prior_times + times


def _damped(loss):
    """A loss on a scale that is linear near 0 and logarithmic far from it."""
    return np.sign(loss) * np.log1p(np.abs(loss))
