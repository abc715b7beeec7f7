"""Brute force for the tests of score entropy: chains by their rate matrices, and true ratios."""

import numpy as np
import pytest
import torch
from numerics import numbers
from scipy import linalg

from difformer_plugin.diffusion.categorical.process import Absorbing, Uniform
from difformer_plugin.diffusion.schedules import SCHEDULES, Floored

COSINE = SCHEDULES["cosine"].normalised()
LINEAR = SCHEDULES["linear"].normalised()
LOG_LINEAR = SCHEDULES["log_linear"].normalised()

V = 5
DATA = np.array([0.4, 0.25, 0.2, 0.1, 0.05])
KINDS = ["uniform", "absorbing"]
USED_SCHEDULES = [LOG_LINEAR, COSINE, LINEAR]

kinds = pytest.mark.parametrize("kind", KINDS)
schedules = pytest.mark.parametrize(
    "schedule", USED_SCHEDULES, ids=["log_linear", "cosine", "linear"]
)


def make(kind, schedule=None, types=V):
    schedule = LOG_LINEAR if schedule is None else schedule
    if kind == "uniform":
        return Uniform(Floored(schedule, 1e-3), types, torch.float64)
    return Absorbing(schedule, types, torch.float64)


def alphas(process, *times):
    return process.schedule.alpha_bar(numbers(*times)).numpy()


def rates(process):
    """Q, rows "from", as its definition has it."""
    to = np.zeros(process.states)
    if isinstance(process, Uniform):
        to[:] = 1 / process.types
    else:
        to[process.mask] = 1
    return np.tile(to, (process.states, 1)) - np.eye(process.states)


def chain(process, s, t):
    """exp((sigma-bar_t - sigma-bar_s) Q), by SciPy."""
    before, after = alphas(process, s, t)
    return linalg.expm(np.log(before / after) * rates(process))


def sigma(process, t, h=1e-6):
    """The derivative of sigma-bar = -log alpha, by differences."""
    before, after = alphas(process, t - h, t + h)
    return np.log(before / after) / (2 * h)


def marginal(process, t):
    """p_t over the states for one position of DATA."""
    return np.pad(DATA, (0, process.states - V)) @ chain(process, 0, t)


def as_ratios(process, output, x_t, t):
    """s (S,) with s_{x_t} = 1, from a network's output (n,), by the definition."""
    alpha = alphas(process, t)[0]
    scale = 1 if isinstance(process, Uniform) else alpha / (1 - alpha)
    ratios = np.pad(scale * np.exp(output), (0, process.states - process.types))
    ratios[x_t] = 1
    return ratios


def true_outputs(process, t):
    """What a perfect network returns at each state, (S, n); noise where it must not count."""
    p, alpha = marginal(process, t), alphas(process, t)[0]
    if isinstance(process, Uniform):
        outputs = np.log(p[None] / p[:, None])
        np.fill_diagonal(outputs, np.random.default_rng(0).normal(size=V))
        return torch.from_numpy(outputs)
    outputs = np.random.default_rng(0).normal(size=(V + 1, V))
    outputs[V] = np.log(p[:V] / p[V] * (1 - alpha) / alpha)
    return torch.from_numpy(outputs)
