"""The anchor loss (Sec. 3.1) without the logits of all tokens at once."""

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

CHUNK_LOGITS = {"cpu": 2**21, "cuda": 2**26}  # held at a time: what caches hold, or 256 MB


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

    Gradients are computed with the loss, a chunk of tokens at a time: with p the softmax, that of
    the logits is p - (1 - epsilon) [v = target] - epsilon / V.

    Args:
        z: (N, D); weight: (V, D); targets: (N,).
    Returns:
        two float32 scalars, in nats; the second, without smoothing, has no gradient.
    """
    device = z.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
    with torch.autocast(device, enabled=False):
        return _ChunkedNLL.apply(z, weight, targets, epsilon, dtype, torch.is_grad_enabled())


class _ChunkedNLL(torch.autograd.Function):
    @staticmethod
    def forward(ctx, z, weight, targets, epsilon, dtype, with_gradients):
        latents, table = z.to(dtype), weight.to(dtype)
        # differences of probabilities are too small for float16, as long as no loss scale is known
        factors = [x.float() if dtype == torch.float16 else x for x in (latents, table)]
        of_z = torch.empty_like(z, dtype=torch.float32)
        of_weight = torch.zeros_like(weight, dtype=torch.float32)
        smoothed = nll = torch.zeros((), device=z.device)
        size = max(1, CHUNK_LOGITS.get(z.device.type, 2**21) // len(weight))
        for start in range(0, len(z), size):
            part = slice(start, start + size)
            target = targets[part, None]
            log_probs = F.log_softmax(F.linear(latents[part], table).float(), dim=-1)
            true = log_probs.gather(1, target)
            nll = nll - true.sum()
            smoothed = smoothed - (1 - epsilon) * true.sum() - epsilon * log_probs.mean(-1).sum()
            if with_gradients:
                gradient = log_probs.exp_().sub_(epsilon / len(weight))
                gradient.scatter_add_(1, target, torch.full_like(true, epsilon - 1))
                gradient = gradient.to(factors[0].dtype)
                of_z[part] = gradient @ factors[1]
                of_weight += gradient.T @ factors[0][part]
        if with_gradients:
            ctx.save_for_backward(of_z, of_weight)
            ctx.count, ctx.dtypes = len(z), (z.dtype, weight.dtype)
        nll = nll / len(z)
        ctx.mark_non_differentiable(nll)
        return smoothed / len(z), nll

    @staticmethod
    @once_differentiable
    def backward(ctx, of_smoothed, _):
        scale = of_smoothed / ctx.count
        of_z, of_weight = (
            (gradient * scale).to(dtype) for gradient, dtype in zip(ctx.saved_tensors, ctx.dtypes)
        )
        return of_z, of_weight, None, None, None, None
