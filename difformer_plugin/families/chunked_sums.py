"""Sums over tokens of what their logits cost, without the logits of all tokens at once."""

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

CHUNK_LOGITS = {"cpu": 2**21, "cuda": 2**26}  # held at a time: what caches hold, or 256 MB


def chunked_sums(costs, latents, table, *columns):
    """What the logits `latents table^T` cost, summed over the tokens.

    Gradients are computed with the sums, a chunk of tokens at a time.

    Args:
        costs: function of float32 logits (m, n), the columns (m,) of the same tokens and a keyword
            `with_gradient`: sums (k,), and the gradient (m, n) of the first of them or None.
        latents: (M, D); table: (n, D).
        columns: (M,) each.
    Returns:
        float32 (k,), of which only the first has a gradient.
    """
    device = latents.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else table.dtype
    with torch.autocast(device, enabled=False):
        return _ChunkedSums.apply(latents, table, costs, dtype, torch.is_grad_enabled(), *columns)


def by_autograd(function):
    """Costs whose gradient is left to autograd.

    Args:
        function: of logits (m, n) and columns (m,) -> (m, k).
    """

    def costs(logits, *columns, with_gradient):
        with torch.set_grad_enabled(with_gradient):
            sums = function(logits.requires_grad_(with_gradient), *columns).sum(0)
            gradient = torch.autograd.grad(sums[0], logits)[0] if with_gradient else None
        return sums.detach(), gradient

    return costs


class _ChunkedSums(torch.autograd.Function):
    @staticmethod
    def forward(ctx, latents, table, costs, dtype, with_gradient, *columns):
        x, w = latents.to(dtype), table.to(dtype)
        # differences of probabilities are too small for float16, as long as no loss scale is known
        factors = [f.float() if dtype == torch.float16 else f for f in (x, w)]
        of_latents = torch.empty_like(latents, dtype=torch.float32)
        of_table = torch.zeros_like(table, dtype=torch.float32)
        size = max(1, CHUNK_LOGITS.get(x.device.type, 2**21) // len(w))
        total = 0
        for start in range(0, max(len(x), 1), size):  # once even if there are no tokens
            part = slice(start, start + size)
            logits = F.linear(x[part], w).float()
            sums, gradient = costs(
                logits, *(column[part] for column in columns), with_gradient=with_gradient
            )
            total = total + sums
            if with_gradient:
                gradient = gradient.to(factors[0].dtype)
                of_latents[part] = gradient @ factors[1]
                of_table += gradient.T @ factors[0][part]
        if with_gradient:
            ctx.save_for_backward(of_latents, of_table)
            ctx.dtypes = latents.dtype, table.dtype
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx, of_sums):
        of_latents, of_table = (
            (gradient * of_sums[0]).to(dtype)
            for gradient, dtype in zip(ctx.saved_tensors, ctx.dtypes)
        )
        return of_latents, of_table, *([None] * (len(ctx.needs_input_grad) - 2))
