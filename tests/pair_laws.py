"""Known models of two tokens of three types: perfect networks, and the laws of their samples."""

import itertools

import numpy as np
import torch
from scipy import stats
from score_chains import alphas, as_ratios, chain, rates, sigma

from difformer_plugin.diffusion.categorical.process import Absorbing, Uniform
from difformer_plugin.diffusion.categorical.scores import tweedie

# The distribution of the data, for ancestral sampling.
DATA = np.array([[0.30, 0.02, 0.08], [0.01, 0.15, 0.04], [0.05, 0.05, 0.30]])
# Another, of dependent tokens, for score-based sampling.
PAIRS = np.array([[0.3, 0.02, 0.08], [0.05, 0.25, 0.0], [0.1, 0.0, 0.2]])


def fits(states, probs):
    """Whether drawn states can be of a distribution: chi-squared, and nothing impossible."""
    counts, probs = np.bincount(states, minlength=len(probs)), np.asarray(probs, np.float64)
    never = probs < 1e-12
    if counts[never].any():
        return False
    expected = probs[~never] / probs[~never].sum() * len(states)
    return len(expected) == 1 or stats.chisquare(counts[~never], expected).pvalue > 1e-3


def predictors(chain, t):
    """p(x_0^i | x_t) of both positions by Bayes' rule, [i, x_t^1, x_t^2, x_0^i]."""
    seen = chain.between(0, t)[:3]
    joint = np.einsum("ab,ax,by->xyab", DATA, seen, seen)
    total = joint.sum((-2, -1), keepdims=True)
    joint = np.where(total > 0, joint / np.where(total > 0, total, 1), 1 / 9)
    return np.stack([joint.sum(-1), joint.sum(-2)])


def ancestral_law(process, chain, indices):
    """The distribution of x_0 (3, 3) after ancestral steps: both positions step independently."""
    prior = process.prior_probs("cpu").numpy()
    p = np.outer(prior, prior)
    for s, t in zip(indices[-2::-1], indices[:0:-1]):
        posterior = np.nan_to_num(chain.posterior(s, t))  # the predictor gives nothing to a nan
        first, second = predictors(chain, t)
        first = np.einsum("xyo,xok->xyk", first, posterior)
        second = np.einsum("xyo,yok->xyk", second, posterior)
        p = np.einsum("xy,xyk,xyl->kl", p, first, second)
    return p[:3, :3]


def pair_outputs(process, x_t, t):
    """What a perfect network returns for PAIRS, both positions: x_t (N, 2) -> (N, 2, n)."""
    forward = chain(process, 0, t)[: process.types]
    p, alpha = forward.T @ PAIRS @ forward, alphas(process, t)[0]
    first, second = p[:, x_t[:, 1]].T, p[x_t[:, 0], :]
    own = p[x_t[:, 0], x_t[:, 1]]
    scale = own if isinstance(process, Uniform) else own * alpha / (1 - alpha)
    ratios = np.stack([first, second], 1)[..., : process.types]
    # what steps can reach and the data cannot: anything will do
    ratios = np.where(scale[:, None, None] > 0, ratios / scale.clip(min=1e-30)[:, None, None], 1)
    return torch.from_numpy(np.log(np.maximum(ratios, 1e-30)))


def pair_kernel(step, process, s, t):
    """The same by matrices, as the law of pairs: (S^2, S^2), rows x_t."""
    states = process.states
    there = chain(process, s, t)
    inverse = np.linalg.inv(there).T
    pairs = np.array(list(itertools.product(range(states), repeat=2)))
    outputs, rows = pair_outputs(process, pairs, t).numpy(), []
    for pair, output in zip(pairs, outputs):
        each = []
        for x, own in zip(pair, output):
            ratios = as_ratios(process, own, x, t)
            if isinstance(process, Absorbing) and x != process.mask:
                ratios = np.eye(states)[x]
            if step is tweedie:
                p = ((inverse @ ratios) * there[:, x]).clip(min=0)
                if s == 0 and states > process.types:
                    p[process.mask] = 0
            else:
                p = (t - s) * sigma(process, t) * rates(process)[:, x] * ratios
                p[x] = 0
                p /= max(p.sum(), 1)
                p[x] = 1 - p.sum()
            each.append(p / p.sum())
        rows.append(np.outer(*each).ravel())
    return np.array(rows)
