"""Objectives of discrete diffusion: what predictions for corrupted tokens cost.

Each is a function of a chunk of tokens, (m,) all, with the network's logits (m, n) for them, and
returns (m, 2): the loss of training, and an unbiased estimate of the token's part in an upper
bound of -log p(x_0) given the length, both in nats.
"""

import torch
from torch.nn import functional as F

from difformer_plugin.diffusion.categorical.process import at
from difformer_plugin.diffusion.categorical.scores import as_log_ratios, score_entropy


def training_times(u, steps):
    """The times (s, t) of training, float64 (B,) both, from uniform numbers u (B,).

    Args:
        steps: T: t is one of 1 / T .. 1, and s the step before it. None for continuous time, in
            which t is evenly distributed in (0, 1], and s means nothing.
    """
    u = u.double()
    if steps is None:
        return 1 - u, 1 - u
    after = (u * steps).floor() + 1
    return (after - 1) / steps, after / steps


def low_discrepancy(start, order):
    """Uniform numbers of a batch, evenly spread: (start + i / B) mod 1 in some order (MDLM).

    Args:
        start: uniform number (1,); order: a permutation of 0 .. B - 1, (B,).
    """
    return (start + order / len(order)) % 1


def smoothed(log_p, nll, epsilon):
    """-log p with label smoothing, spread evenly over the types."""
    return nll if epsilon == 0 else (1 - epsilon) * nll - epsilon * log_p.mean(-1)


class D3PM:
    """One term of L_vb (Eq. 1), and the auxiliary cross-entropy beside it (Eq. 5).

    The loss is KL_t + lambda * CE: a term is not multiplied by T, so lambda weighs against one
    step's KL. The bound has it times T, and the prior's KL.

    Args:
        process: categorical.Process; steps: T.
        auxiliary: lambda; epsilon: of the label smoothing of its cross-entropy.
    """

    def __init__(self, process, steps, auxiliary, epsilon=0.0):
        self.process, self.steps = process, steps
        self.auxiliary, self.epsilon = auxiliary, epsilon
        # without the auxiliary term a token that is still there costs nothing
        self.masks_only = process.states > process.types and auxiliary == 0

    def __call__(self, logits, x_0, x_t, s, t):
        log_p = F.log_softmax(logits, dim=-1)
        kl = self.process.kl(x_0, x_t, log_p, s, t)
        loss = kl
        if self.auxiliary:
            loss = kl + self.auxiliary * smoothed(log_p, -at(log_p, x_0), self.epsilon)
        with torch.no_grad():
            bound = self.steps * kl + self.process.prior_kl(x_0)
        return torch.stack([loss, bound.to(loss.dtype)], dim=-1)


class MDLM:
    """The Rao-Blackwellised bound under SUBS: the weighted cross-entropy of masks.

    Args:
        process: Absorbing; steps: T, or None in continuous time.
        epsilon: of label smoothing.
    """

    masks_only = True

    def __init__(self, process, steps, epsilon=0.0):
        self.process, self.steps, self.epsilon = process, steps, epsilon

    def weight(self, s, t):
        """Of a mask's cross-entropy, float64 (M,)."""
        if self.steps is None:
            return self.process.schedule.hazard(t)
        return self.steps * self.process.returning(s, t)

    def __call__(self, logits, x_0, x_t, s, t):
        log_p = F.log_softmax(logits, dim=-1)
        weight = (self.weight(s, t) * (x_t == self.process.mask)).to(log_p.dtype)
        nll = -at(log_p, x_0)
        return torch.stack([weight * smoothed(log_p, nll, self.epsilon), weight * nll], dim=-1)


class SEDD:
    """Denoising score entropy; the bound has the prior's KL besides.

    Args:
        process: Uniform or Absorbing.
    """

    steps = None

    def __init__(self, process):
        self.process = process
        self.masks_only = process.states > process.types

    def __call__(self, logits, x_0, x_t, s, t):
        loss = score_entropy(self.process, as_log_ratios(self.process, logits), x_0, x_t, t)
        with torch.no_grad():
            bound = loss + self.process.prior_kl(x_0).to(loss.dtype)
        return torch.stack([loss, bound], dim=-1)
