"""The anchor loss (Sec. 3.1) without the logits of all tokens at once."""

from functools import partial

import torch
from torch.nn import functional as F

from difformer_plugin.families.chunked_sums import chunked_sums


def smoothed_nll(logits, targets, epsilon):
    """Mean negative log-likelihood, with and without label smoothing.

    Smoothing spreads epsilon evenly over the whole vocabulary.

    Args:
        logits: (N, V); targets: (N,).
    Returns:
        two float32 scalars, in nats.
    """
    log_probs = F.log_softmax(logits.float(), dim=-1)
    nll = F.nll_loss(log_probs, targets)
    return (1 - epsilon) * nll - epsilon * log_probs.mean(), nll


def chunked_smoothed_nll(z, weight, targets, epsilon):
    """`smoothed_nll` of the logits z weight^T, of which N x V are never held.

    Args:
        z: (N, D); weight: (V, D); targets: (N,).
    Returns:
        two float32 scalars, in nats; the second, without smoothing, has no gradient.
    """
    smoothed, nll = chunked_sums(partial(_costs, epsilon), z, weight, targets) / len(z)
    return smoothed, nll.detach()


def _costs(epsilon, logits, targets, with_gradient):
    """Sums with and without smoothing, and the first one's gradient.

    With p the softmax that is p - (1 - epsilon) [v = target] - epsilon / V, a third faster than
    autograd's.
    """
    log_probs, targets = F.log_softmax(logits, dim=-1), targets[:, None]
    true = log_probs.gather(1, targets)
    smoothed = -(1 - epsilon) * true.sum() - epsilon * log_probs.mean(-1).sum()
    sums = torch.stack([smoothed, -true.sum()])
    if not with_gradient:
        return sums, None
    gradient = log_probs.exp_().sub_(epsilon / logits.shape[1])
    return sums, gradient.scatter_add_(1, targets, torch.full_like(true, epsilon - 1))
