"""Sums over tokens of what their logits cost, without the logits of all tokens at once."""

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from difformer_plugin.criterions.anchor import CHUNK_LOGITS


def chunked_sums(function, predictions, table, *columns):
    """Sums (k,) over the tokens of what a function makes of the logits `predictions table^T`.

    Gradients are computed with the sums, a chunk of tokens at a time.

    Args:
        function: of float32 logits (m, n) and the columns (m,) of the same tokens -> (m, k).
        predictions: (M, D); table: (n, D).
        columns: (M,) each.
    Returns:
        float32 (k,), of which only the first has a gradient.
    """
    device = predictions.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else table.dtype
    with torch.autocast(device, enabled=False):
        return _ChunkedSums.apply(
            predictions, table, function, dtype, torch.is_grad_enabled(), *columns
        )


class _ChunkedSums(torch.autograd.Function):
    @staticmethod
    def forward(ctx, predictions, table, function, dtype, with_gradients, *columns):
        x, w = predictions.to(dtype), table.to(dtype)
        # differences of probabilities are too small for float16, as long as no loss scale is known
        factors = [f.float() if dtype == torch.float16 else f for f in (x, w)]
        of_x = torch.zeros_like(predictions, dtype=torch.float32)
        of_w = torch.zeros_like(table, dtype=torch.float32)
        size = max(1, CHUNK_LOGITS.get(x.device.type, 2**21) // len(w))
        sums = []
        for start in range(0, max(len(x), 1), size):
            part = slice(start, start + size)
            logits = F.linear(x[part], w).float()
            with torch.set_grad_enabled(with_gradients):
                logits.requires_grad_(with_gradients)
                costs = function(logits, *(column[part] for column in columns)).sum(0)
                cost = costs[0]
            sums.append(costs.detach())
            if with_gradients:
                (gradient,) = torch.autograd.grad(cost, logits)
                gradient = gradient.to(factors[0].dtype)
                of_x[part] = gradient @ factors[1]
                of_w += gradient.T @ factors[0][part]
        if with_gradients:
            ctx.save_for_backward(of_x, of_w)
            ctx.dtypes = predictions.dtype, table.dtype
        return torch.stack(sums).sum(0)

    @staticmethod
    @once_differentiable
    def backward(ctx, of_sums):
        of_x, of_w = (
            (gradient * of_sums[0]).to(dtype)
            for gradient, dtype in zip(ctx.saved_tensors, ctx.dtypes)
        )
        return of_x, of_w, *([None] * (len(ctx.needs_input_grad) - 2))
