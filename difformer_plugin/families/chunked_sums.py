"""Sums over tokens of what their logits cost, without the logits of all tokens at once."""

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

CHUNK_LOGITS = {"cpu": 2**21, "cuda": 2**26}  # held at a time: what caches hold, or 256 MB


class Costs(Protocol):
    """What tokens cost, as a function of their logits.

    Attributes:
        function: logits (m, n) and columns (m,) -> the costs of each token (m, k).
    """

    function: Callable[..., torch.Tensor]

    def __call__(
        self, logits: torch.Tensor, *columns: torch.Tensor, with_gradient: bool
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The sums of `function` over tokens (k,), and the gradient (m, n) of the first or None."""


class by_autograd:  # noqa: N801  (reads as a function)
    """Costs whose gradient is left to autograd.

    Args:
        function: see `Costs`.
    """

    def __init__(self, function: Callable[..., torch.Tensor]):
        self.function = function

    def __call__(
        self, logits: torch.Tensor, *columns: torch.Tensor, with_gradient: bool
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """See `Costs`."""
        with torch.set_grad_enabled(with_gradient):
            sums = self.function(logits.requires_grad_(with_gradient), *columns).sum(0)
            gradient = torch.autograd.grad(sums[0], logits)[0] if with_gradient else None
        return sums.detach(), gradient


class Weighted:
    """Costs of tokens, each multiplied by a weight, which is their first column.

    Args:
        costs: see `Costs`.

    Attributes:
        unweighted: the first cost of each token without its weight, (m,) for each chunk.
    """

    def __init__(self, costs: Costs):
        self.costs = costs
        self.unweighted: list[torch.Tensor] = []

    def function(
        self, logits: torch.Tensor, weights: torch.Tensor, *columns: torch.Tensor
    ) -> torch.Tensor:
        """The weighted costs of tokens (m, k), which are also noted without their weights."""
        costs = self.costs.function(logits, *columns)
        self.unweighted.append(costs[:, 0].detach())
        return weights[:, None] * costs

    def __call__(
        self,
        logits: torch.Tensor,
        weights: torch.Tensor,
        *columns: torch.Tensor,
        with_gradient: bool,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """See `Costs`."""
        with torch.no_grad():
            sums = self.function(logits, weights, *columns).sum(0)
        if not with_gradient:
            return sums, None
        _, gradient = self.costs(logits, *columns, with_gradient=True)
        return sums, weights[:, None] * gradient


def chunked_sums(
    costs: Costs, latents: torch.Tensor, table: torch.Tensor, *columns: torch.Tensor
) -> torch.Tensor:
    """What the logits `latents table^T` cost, summed over the tokens.

    Gradients are computed with the sums, a chunk of tokens at a time.

    Args:
        latents: (M, D); table: (n, D).
        columns: (M,) each.
    Returns:
        float32 (k,), of which only the first has a gradient.
    """
    device = latents.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else table.dtype
    with torch.autocast(device, enabled=False):
        return _ChunkedSums.apply(latents, table, costs, dtype, torch.is_grad_enabled(), *columns)


class _ChunkedSums(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        latents: torch.Tensor,
        table: torch.Tensor,
        costs: Costs,
        dtype: torch.dtype,
        with_gradient: bool,
        *columns: torch.Tensor,
    ) -> torch.Tensor:
        x, w = latents.to(dtype), table.to(dtype)
        # Differences of probabilities are too small for float16 while no loss scale is known.
        factors = [f.float() if dtype == torch.float16 else f for f in (x, w)]
        grad_latents = torch.empty_like(latents, dtype=torch.float32)
        grad_table = torch.zeros_like(table, dtype=torch.float32)
        size = max(1, CHUNK_LOGITS.get(x.device.type, 2**21) // len(w))
        total: Any = 0
        for start in range(0, max(len(x), 1), size):  # once even if there are no tokens
            part = slice(start, start + size)
            logits = F.linear(x[part], w).float()
            sums, gradient = costs(
                logits, *(column[part] for column in columns), with_gradient=with_gradient
            )
            total = total + sums
            if with_gradient:
                gradient = gradient.to(factors[0].dtype)
                grad_latents[part] = gradient @ factors[1]
                grad_table += gradient.T @ factors[0][part]
        if with_gradient:
            ctx.save_for_backward(grad_latents, grad_table)
            ctx.dtypes = latents.dtype, table.dtype
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_sums: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        grad_latents, grad_table = (
            (gradient * grad_sums[0]).to(dtype)
            for gradient, dtype in zip(ctx.saved_tensors, ctx.dtypes)
        )
        return grad_latents, grad_table, *([None] * (len(ctx.needs_input_grad) - 2))
