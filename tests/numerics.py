"""For the tests of discrete diffusion: float64 tensors, integrals, chi-square tests."""

import numpy as np
import torch
from scipy import stats


def numbers(*values):
    return torch.tensor(values, dtype=torch.float64)


def nodes(order=12):
    """Times and weights of an integral over (0, 1) that may be singular at both ends."""
    ends = 10.0 ** np.arange(-10, 0)
    cuts = np.concatenate([[0], ends, [0.5], 1 - ends[::-1], [1]])
    x, w = np.polynomial.legendre.leggauss(order)
    half = np.diff(cuts)[:, None] / 2
    return ((cuts[:-1, None] + half) + half * x).ravel(), (half * w).ravel()


def is_law(counts, law):
    """Whether counts may be drawn from a law, by a chi-square test."""
    expected = law / law.sum() * counts.sum()
    return len(law) == 1 or stats.chisquare(counts, expected).pvalue > 1e-3
