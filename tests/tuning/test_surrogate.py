"""The Gaussian-process regression of `difformer tune`."""

import numpy as np
import pytest

from difformer_plugin.tuning.surrogate import Surrogate


def test_surrogate_interpolates_and_is_uncertain_elsewhere():
    points = np.linspace(0, 4, 41)[:, None] * [1.0, 0.5]
    rows = [0, 20, 40, 10]
    values = np.sin(points[rows, 0])
    surrogate = Surrogate(points)
    surrogate.predict(rows[:2], values[:2], np.zeros(2))
    means, deviations = surrogate.predict(rows, values, np.full(4, 1e-3))
    assert means[rows] == pytest.approx(values, abs=0.01)
    assert deviations[rows].max() < 0.01 < deviations[[5, 15, 30]].min()
    # the same by the textbook's formulas, Rasmussen and Williams (2006), Eqs. 2.23 and 2.24
    squares = (points[:, None] - points[None]) ** 2 / 2
    kernel = np.exp(-squares).sum(-1) + np.exp(-squares.sum(-1) / 4)
    scales = []
    for scale in (0.1, 0.3, 1.0):
        gram = scale**2 * kernel[np.ix_(rows, rows)] + np.eye(4) * 2e-6
        likelihood = -0.5 * values @ np.linalg.solve(gram, values)
        scales.append((likelihood - 0.5 * np.linalg.slogdet(gram)[1], scale, gram))
    _, scale, gram = max(scales, key=lambda each: each[0])
    cross = scale**2 * kernel[:, rows]
    assert means == pytest.approx(cross @ np.linalg.solve(gram, values), abs=1e-6)
    variances = np.diag(scale**2 * kernel - cross @ np.linalg.solve(gram, cross.T))
    assert deviations**2 == pytest.approx(np.maximum(variances, 1e-8), abs=1e-6)
