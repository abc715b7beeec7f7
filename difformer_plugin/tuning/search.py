"""The search for the fastest settings of decoding whose loss of BLEU is small enough.

The space is far too large to measure. A model of the two quantities, a Gaussian process over a
few features of the settings, is fitted to what has been measured; the settings from which it
expects most are measured next, at first on a part of the sentences. The search ends when it
expects nothing more, and only what has stood on all sentences counts.
"""

from typing import NamedTuple

import numpy as np
from scipy.special import ndtr

from difformer_plugin.tuning.space import expected_work, features

GAIN = 0.01  # of speed: what must be expected to measure once more
EXPLORE = 0.75  # share of a budget after which nothing new is measured, but what is known to stand
SCALES = (0.1, 0.3, 1.0)  # of the effect of one feature on a loss or a time
NOISE = 0.1  # of the logarithm of a time that was measured once
EXPECTED = 0.05  # BLEU to be lost, as long as nothing is known, where work is halved


class Measured(NamedTuple):
    """What decoding with some settings was like.

    Attributes:
        loss: BLEU of the reference settings less that of these, on the same sentences.
        error: its standard error.
        seconds: wall time of a sentence.
        whole: of all sentences, not of a part.
    """

    loss: float
    error: float
    seconds: float
    whole: bool


class Process:
    """A Gaussian process over a fixed set of points.

    Its kernel is a sum of one for each feature, since effects mostly add up, and of one for all
    features together; their scale is the likeliest of a few.

    Source:
        Duvenaud et al. (2011), Additive Gaussian Processes.
    Args:
        points: features, (M, D).
    """

    def __init__(self, points):
        self.points, self.rows, self.columns = points, [], []

    def predict(self, rows, values, errors):
        """What the values at some points tell about all points.

        Args:
            rows: indices of points; those of an earlier call come first, in the same order.
            values: (n,).
            errors: their standard errors, (n,).
        Returns:
            means and standard deviations, (M,) each.
        """
        for row in rows[len(self.rows) :]:
            squares = 0.5 * (self.points - self.points[row]) ** 2
            together = np.exp(-squares.sum(axis=1) / 4)
            self.columns.append(np.exp(-squares).sum(axis=1) + together)
        self.rows = list(rows)
        cross = np.stack(self.columns)  # (n, M)
        fits = [(self._fit(cross, values, errors, scale), scale) for scale in SCALES]
        (_, whitener, white), scale = max(fits, key=lambda fit: fit[0][0])
        half = scale**2 * (whitener @ cross)
        prior = scale**2 * (self.points.shape[1] + 1)
        variances = prior - np.square(half).sum(axis=0)
        return white @ half, np.sqrt(np.maximum(variances, 1e-8))

    def _fit(self, cross, values, errors, scale):
        """Log-likelihood of the values, and what makes them independent of each other."""
        gram = scale**2 * cross[:, self.rows] + np.diag(np.square(errors) + 1e-6)
        root = np.linalg.cholesky(gram)
        whitener = np.linalg.inv(root)
        white = whitener @ np.asarray(values)
        return -0.5 * white @ white - np.log(np.diag(root)).sum(), whitener, white


class Search:
    """What has been measured, and what to measure next.

    The first measurement is of the reference, on all sentences.

    Args:
        candidates: of `space`, the reference first.
        max_loss: of BLEU.
        measure: called with settings and whether to take all sentences; returns Measured.
    """

    def __init__(self, candidates, max_loss, measure):
        self.candidates, self.max_loss, self.measure = candidates, max_loss, measure
        points = np.array([features(settings) for settings in candidates])
        points = points[:, np.ptp(points, axis=0) > 0]  # what is the same for all says nothing
        self.rows = {settings: row for row, settings in enumerate(candidates)}
        self.work = np.log([expected_work(settings) for settings in candidates])
        self.losses, self.times = Process(points), Process(points)
        self.ease = EXPECTED * (self.work[0] - self.work) / np.log(2)
        self.found = {}
        self._measure(candidates[0], True)

    def promising(self, explore=True):
        """The settings from which most is to be expected; None if that is next to nothing.

        It is the logarithm of the speed to be gained over the best known, times the probability
        that the loss is small enough.

        Source:
            Gardner et al. (2014), Bayesian Optimization with Inequality Constraints, where the
            gain is an expectation too; times vary too little for that to matter.
        """
        losses, deviations, times = self._believed()
        chances = ndtr((_damped(self.max_loss) - losses) / deviations)
        gains = chances * np.maximum(times[self.rows[self.best()]] - times, 0)
        known = np.zeros(len(gains), bool)
        for settings, measured in self.found.items():
            known[self.rows[settings]] = True
            if measured.whole:
                gains[self.rows[settings]] = 0
        if not explore:
            gains[~known] = 0
        row = int(np.argmax(gains))
        return self.candidates[row] if gains[row] > GAIN else None

    def best(self):
        """The fastest of the settings whose loss on all sentences is small enough."""
        standing = [
            settings
            for settings, measured in self.found.items()
            if measured.whole and measured.loss <= self.max_loss
        ]
        return min(standing, key=lambda settings: self.found[settings].seconds)

    def front(self, whole=False):
        """The settings than which none that was measured is both faster and better, best first.

        Args:
            whole: of those measured on all sentences.
        """
        front = []
        # of equal losses the fastest first
        for settings in sorted(
            self.found, key=lambda s: (self.found[s].loss, self.found[s].seconds)
        ):
            measured = self.found[settings]
            slower = front and measured.seconds >= self.found[front[-1]].seconds
            if not slower and (measured.whole or not whole):
                front.append(settings)
        return front

    def run(self, used, observe=lambda: None):
        """Search until nothing is to be expected any more, or the budget is used up.

        Args:
            used: called for the share of the budget that is used up.
            observe: called after each measurement.
        """
        while (share := used()) < 1:
            promising = self.promising(explore=share < EXPLORE)
            if promising is None:
                return
            self._measure(promising, whole=promising in self.found)
            observe()

    def confirm(self, settings):
        """Measure settings on all sentences, unless that was done."""
        if not self.found[settings].whole:
            self._measure(settings, True)

    def _measure(self, settings, whole):
        self.found[settings] = self.measure(settings, whole)

    def _believed(self):
        """Damped losses, their standard deviations, and logarithms of seconds, (M,) each."""
        rows = [self.rows[settings] for settings in self.found]
        measured = list(self.found.values())
        errors = [m.error / (1 + abs(m.loss)) + 0.01 for m in measured]
        values = [_damped(m.loss) - self.ease[row] for m, row in zip(measured, rows)]
        losses, deviations = self.losses.predict(rows, values, errors)
        losses += self.ease
        base = self.work - self.work[0] + np.log(measured[0].seconds)
        values = [np.log(m.seconds) - base[row] for m, row in zip(measured, rows)]
        times, _ = self.times.predict(rows, values, np.full(len(rows), NOISE))
        return losses, deviations, base + times


def _damped(loss):
    """A loss as it is while small, and on a logarithmic scale where it is large."""
    return np.sign(loss) * np.log1p(np.abs(loss))
