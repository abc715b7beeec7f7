"""Gaussian-process regression: predicts loss and time of settings that were not measured."""

from collections.abc import Sequence

import numpy as np

SCALES = (0.1, 0.3, 1.0)  # candidates for the standard deviation that one feature accounts for


class Surrogate:
    """Regression by a Gaussian process with zero mean, over a fixed set of points.

    The kernel is a sum of one kernel for each feature, since effects mostly add up, and one of all
    features together. Of a few scales, the most likely one is used.

    Source:
        Duvenaud et al. (2011), Additive Gaussian Processes.
    Args:
        points: features, (M, D).
    """

    def __init__(self, points: np.ndarray) -> None:
        self.points = points
        self._rows: list[int] = []  # of the points whose kernel values are cached
        self._kernel_columns: list[np.ndarray] = []

    def predict(
        self, rows: Sequence[int], values: Sequence[float], errors: Sequence[float]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Predict the values of all points from those measured at some.

        Args:
            rows: indices of the measured points, (n,); those of earlier calls come first, in the
                same order.
            values: what was measured, (n,).
            errors: the standard errors of the values, (n,).
        Returns:
            means and standard deviations, (M,) each.
        """
        for row in rows[len(self._rows) :]:
            squares = 0.5 * (self.points - self.points[row]) ** 2
            joint = np.exp(-squares.sum(axis=1) / 4)
            self._kernel_columns.append(np.exp(-squares).sum(axis=1) + joint)
        self._rows = list(rows)
        kernel = np.stack(self._kernel_columns)  # (n, M)
        fits = [(self._fit(kernel, values, errors, scale), scale) for scale in SCALES]
        (_, whitener, whitened), scale = max(fits, key=lambda fit: fit[0][0])
        whitened_kernel = scale**2 * (whitener @ kernel)
        prior = scale**2 * (self.points.shape[1] + 1)
        variances = prior - np.square(whitened_kernel).sum(axis=0)
        return whitened @ whitened_kernel, np.sqrt(np.maximum(variances, 1e-8))

    def _fit(self, kernel, values, errors, scale):
        """Log-likelihood of the values, the inverse Cholesky factor, and the whitened values."""
        covariance = scale**2 * kernel[:, self._rows] + np.diag(np.square(errors) + 1e-6)
        root = np.linalg.cholesky(covariance)
        whitener = np.linalg.inv(root)
        whitened = whitener @ np.asarray(values)
        log_likelihood = -0.5 * whitened @ whitened - np.log(np.diag(root)).sum()
        return log_likelihood, whitener, whitened
