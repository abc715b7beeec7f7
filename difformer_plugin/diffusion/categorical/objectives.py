"""Training objectives of categorical diffusion with a fixed length.

An objective takes a chunk of m tokens: the network's logits (m, n), and x_0, x_t (int64) and s, t
(float64), all (m,). It returns (m, 2) in nats: the training loss, and an unbiased estimate of the
token's part of an upper bound on -log p(x_0) given the length.
"""

import torch
from torch.nn import functional as F

from difformer_plugin.diffusion.categorical.process import (
    Absorbing,
    ForwardProcess,
    Interpolating,
    at,
)
from difformer_plugin.diffusion.categorical.scores import (
    as_log_ratios,
    score_entropy,
    squared_error,
)

SCORE_LOSSES = {"entropy": score_entropy, "squared": squared_error}


def smoothed(log_p: torch.Tensor, nll: torch.Tensor, epsilon: float) -> torch.Tensor:
    """Cross-entropy with label smoothing over all types.

    Args:
        log_p: (m, n); nll: (m,), -log_p at the target; epsilon: the weight of the uniform part.
    Returns:
        (m,).
    """
    return nll if epsilon == 0 else (1 - epsilon) * nll - epsilon * log_p.mean(-1)


class D3PM:
    """One term of L_vb (Eq. 1), with the auxiliary cross-entropy (Eq. 5).

    The loss is KL_t + lambda CE. KL_t is not multiplied by T, so lambda weighs the cross-entropy
    against the KL divergence of one step. The bound is T KL_t + KL(q(x_T | x_0) || p(x_T)).

    Args:
        process: the forward process.
        steps: T.
        auxiliary: lambda.
        epsilon: of the label smoothing of the cross-entropy.
    """

    def __init__(self, process: ForwardProcess, steps: int, auxiliary: float, epsilon: float = 0.0):
        self.process, self.steps = process, steps
        self.auxiliary, self.epsilon = auxiliary, epsilon
        # only the auxiliary term has a loss on tokens that are not masked
        self.masks_only = process.has_mask and auxiliary == 0

    def __call__(
        self,
        logits: torch.Tensor,
        x_0: torch.Tensor,
        x_t: torch.Tensor,
        s: torch.Tensor,
        t: torch.Tensor,
    ) -> torch.Tensor:
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
        process: the absorbing process.
        steps: T, or None in continuous time.
        epsilon: of label smoothing.
    """

    masks_only = True

    def __init__(self, process: Absorbing, steps: int | None, epsilon: float = 0.0):
        self.process, self.steps, self.epsilon = process, steps, epsilon

    def weight(self, s: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """The weight of a mask's cross-entropy, float64 (m,)."""
        if self.steps is None:
            return self.process.schedule.unmasking_rate(t)
        return self.steps * self.process.schedule.unmasking_probability(s, t)

    def __call__(
        self,
        logits: torch.Tensor,
        x_0: torch.Tensor,
        x_t: torch.Tensor,
        s: torch.Tensor,
        t: torch.Tensor,
    ) -> torch.Tensor:
        log_p = F.log_softmax(logits, dim=-1)
        weight = (self.weight(s, t) * (x_t == self.process.mask)).to(log_p.dtype)
        nll = -at(log_p, x_0)
        return torch.stack([weight * smoothed(log_p, nll, self.epsilon), weight * nll], dim=-1)


class SEDD:
    """Denoising score entropy, or another loss of ratios with the same minimum.

    The bound is always that of the score entropy, plus KL(q(x_T | x_0) || p(x_T)).

    Args:
        process: Uniform or Absorbing.
        score_loss: one of SCORE_LOSSES.
    """

    steps = None

    def __init__(self, process: Interpolating, score_loss: str = "entropy"):
        self.process, self.loss = process, SCORE_LOSSES[score_loss]
        self.masks_only = process.has_mask

    def __call__(
        self,
        logits: torch.Tensor,
        x_0: torch.Tensor,
        x_t: torch.Tensor,
        s: torch.Tensor,
        t: torch.Tensor,
    ) -> torch.Tensor:
        log_ratios = as_log_ratios(self.process, logits)
        loss = self.loss(self.process, log_ratios, x_0, x_t, t)
        with torch.no_grad():
            entropy = loss
            if self.loss is not score_entropy:
                entropy = score_entropy(self.process, log_ratios, x_0, x_t, t)
            bound = entropy + self.process.prior_kl(x_0).to(loss.dtype)
        return torch.stack([loss, bound], dim=-1)
