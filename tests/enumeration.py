"""Brute force for the tests of discrete diffusion: chains that are nothing but their matrices."""

import numpy as np
import torch

from difformer_plugin.diffusion.categorical.information import uniform_mutual_information
from difformer_plugin.diffusion.categorical.process import Absorbing, ForwardProcess, Uniform
from difformer_plugin.diffusion.schedules import CATEGORICAL, SCHEDULES, schedule_names

TYPES, STEPS = 5, 8
UNIGRAM = np.array([0.5, 0.2, 0.15, 0.1, 0.05])
KINDS = ["uniform", "absorbing", "dense"]
NAMES = schedule_names(CATEGORICAL)
CASES = [(kind, name) for kind in KINDS[:2] for name in NAMES] + [("dense", None)]


class Chain:
    """A chain of T steps, given by Q_1 ... Q_T (rows "from"); x_0 is one of the first `types`."""

    def __init__(self, matrices, types):
        self.matrices, self.types = [np.asarray(matrix) for matrix in matrices], types
        self.states, self.steps = len(self.matrices[0]), len(self.matrices)

    def between(self, s, t):
        """Q_{s+1} ... Q_t: [x_s, x_t]."""
        product = np.eye(self.states)
        for matrix in self.matrices[s:t]:
            product = product @ matrix
        return product

    def posterior(self, s, t):
        """q(x_s | x_t, x_0) as [x_t, x_0, x_s] by Bayes' rule; nan where x_0 cannot become x_t."""
        joint = np.einsum("os,st->tos", self.between(0, s)[: self.types], self.between(s, t))
        with np.errstate(invalid="ignore"):
            return joint / joint.sum(-1, keepdims=True)

    def reverse(self, predictor, s, t):
        """p(x_s | x_t) as [x_t, x_s]: the sum over x~ that can become x_t; nan if there is none."""
        posterior, result = self.posterior(s, t), np.full((self.states, self.states), np.nan)
        for x_t in range(self.states):
            possible = [x for x in range(self.types) if not np.isnan(posterior[x_t, x]).any()]
            weights = predictor[x_t, possible]
            if weights.sum() > 0:
                result[x_t] = weights @ posterior[x_t, possible] / weights.sum()
        return result

    def kl(self, predictor, s, t):
        """The term of L_vb as [x_t, x_0]: reconstruction for s = 0, nan where impossible."""
        if s == 0:
            term = -np.log(predictor)
            term[self.between(0, t)[: self.types].T == 0] = np.nan
            return term
        return divergence(self.posterior(s, t), self.reverse(predictor, s, t)[:, None])

    def true_predictor(self, data, t):
        """p(x_0 | x_t) as [x_t, x_0] for data (types,), by Bayes' rule; even where x_t is never."""
        joint = (data[:, None] * self.between(0, t)[: self.types]).T
        total = joint.sum(-1, keepdims=True)
        return np.where(total > 0, joint / np.where(total > 0, total, 1), 1 / self.types)

    def paths(self, data):
        """All x_0 ... x_T that are possible, (N, T + 1), and their probabilities (N,)."""
        paths, weights = np.arange(self.types)[:, None], np.asarray(data)
        for matrix in self.matrices:
            weights = (weights[:, None] * matrix[paths[:, -1]]).ravel()
            ends = np.tile(np.arange(self.states), len(paths))[:, None]
            paths = np.hstack([np.repeat(paths, self.states, axis=0), ends]).astype(np.int8)
            paths, weights = paths[weights > 0], weights[weights > 0]
        return paths, weights


class Dense(ForwardProcess):
    """A chain as a Process: what the base class makes of arbitrary matrices."""

    def __init__(self, chain, stationary):
        super().__init__(chain.types, chain.states, torch.float64)
        self.chain, self.stationary = chain, torch.tensor(stationary, dtype=torch.float64)

    def _matrices(self, s, t):
        steps = torch.stack([s, t], -1) * self.chain.steps
        pairs, index = steps.round().int().unique(dim=0, return_inverse=True)
        return torch.tensor(np.stack([self.chain.between(*pair) for pair in pairs]))[index]

    def row(self, x, s, t):
        return self._matrices(s, t)[torch.arange(len(x)), x]

    def column(self, x, s, t):
        return self._matrices(s, t)[torch.arange(len(x)), :, x]

    def act(self, v, s, t):
        return (v[:, None] @ self._matrices(s, t))[:, 0]

    def prior_probs(self, device):
        return self.stationary


def mixing(alphas, stationary):
    """Q_t = (1 - beta_t) I + beta_t 1 pi^T, beta_t = 1 - alpha_t / alpha_{t-1}: T matrices."""
    betas = 1 - alphas[1:] / alphas[:-1]
    size = len(stationary)
    return [(1 - beta) * np.eye(size) + beta * np.ones((size, 1)) * stationary for beta in betas]


def schedule_named(name):
    if SCHEDULES[name].of_information:
        return uniform_mutual_information(torch.tensor(UNIGRAM))
    return SCHEDULES[name].normalised()


def build(kind, schedule, types=TYPES, steps=STEPS):
    """A process of the plug-in and its chain of `steps` steps."""
    if kind == "dense":  # unsymmetric, and another matrix at each step
        random = np.random.default_rng(0)
        chain = Chain(random.dirichlet(np.full(types + 1, 0.3), (steps, types + 1)), types)
        return Dense(chain, random.dirichlet(np.ones(types + 1))), chain
    if kind == "uniform":
        process, stationary = Uniform(schedule, types, torch.float64), np.full(types, 1 / types)
    else:
        process, stationary = Absorbing(schedule, types, torch.float64), np.eye(types + 1)[types]
    alphas = schedule.alpha_bar(torch.arange(steps + 1, dtype=torch.float64) / steps).numpy()
    return process, Chain(mixing(alphas, stationary), types)


def random_predictor(chain, seed=0):
    """p~(x_0 | x_t) as [t, x_t, x_0], of no use whatever."""
    return np.random.default_rng(seed).dirichlet(
        np.ones(chain.types), (chain.steps + 1, chain.states)
    )


def substituted(predictor):
    """SUBS for the absorbing process: what is no mask stays as it is (..., types + 1, types)."""
    types = predictor.shape[-1]
    result = predictor.copy()
    result[..., :types, :] = np.eye(types)
    return result


def divergence(q, p):
    """KL(q || p) over the last axis, 0 log 0 = 0; nan where q is."""
    q, p = np.broadcast_arrays(q, p)
    safe = np.where(q == 0, 1, p)
    return (q * np.log(np.where(q == 0, 1, q) / safe)).sum(-1)


def entropy(distribution):
    return -sum(p * np.log(p) for p in np.ravel(distribution) if p > 0)


def rows(*counts):
    """All combinations of states, one a row: an int64 tensor (M,) for each."""
    return (
        torch.cartesian_prod(*[torch.arange(count) for count in counts]).reshape(-1, len(counts)).T
    )


def log(probs):
    """As the plug-in takes log p~: a float64 tensor, -inf at 0."""
    return torch.tensor(probs, dtype=torch.float64).log()


def when(step, count, steps=STEPS):
    """The time of a step, once a row: float64 (count,)."""
    return torch.full((count,), step / steps, dtype=torch.float64)
