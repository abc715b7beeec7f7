"""Dropout (Srivastava et al., 2014) with fast random masks on CPUs."""

from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

LEVELS = 2**16  # a 16-bit random number decides whether an element is dropped


class Dropout(nn.Dropout):
    """torch's dropout, except that masks on a CPU are drawn by NumPy.

    torch draws masks on a CPU in a single thread, element by element. Here an element is dropped
    with probability p rounded to a multiple of 1/65536, and the rest is scaled by the inverse of
    the probability of being kept. torch's generator seeds the masks, so that `torch.manual_seed`
    makes them reproducible.
    """

    def forward(self, x: torch.Tensor, residual: torch.Tensor | None = None) -> torch.Tensor:
        """Drop elements of x in training, and add the residual (of the same shape) if given."""
        dropped = round(self.p * LEVELS)
        fast = x.device.type == "cpu" and 0 < dropped < LEVELS
        if fast and self.training:
            return _Drop.apply(x, residual, dropped)
        x = F.dropout(x, self.p, self.training)
        return x if residual is None else residual + x


class _Drop(torch.autograd.Function):
    """Dropout and the addition of a residual in one operation with a saved mask."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, residual: torch.Tensor | None, dropped: int
    ) -> torch.Tensor:
        keep, scale = keep_mask(x, dropped), LEVELS / (LEVELS - dropped)
        ctx.save_for_backward(keep)
        ctx.scale, ctx.dtype = scale, x.dtype
        if residual is None:
            return (x * keep).mul_(scale)
        return torch.addcmul(residual, x.to(residual), keep.to(residual), value=scale)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        (keep,) = ctx.saved_tensors
        grad_x = (gradient.to(ctx.dtype) * keep).mul_(ctx.scale)
        return grad_x, gradient if ctx.needs_input_grad[1] else None, None


def keep_mask(x: torch.Tensor, dropped: int) -> torch.Tensor:
    """Draw a mask of the shape and type of x: 1 where an element is kept, 0 where it is dropped.

    Args:
        dropped: how many of `LEVELS` equally likely random numbers drop an element.
    """
    seed = int(torch.randint(2**63 - 1, ()))
    raw = np.random.SFC64(seed).random_raw(-(-x.numel() // 4))  # 64 bits each: four draws
    draws = torch.from_numpy(raw.view(np.int16))[: x.numel()].view(x.shape)
    # Write floats directly: kernels that mix bools and floats are slow.
    return torch.ge(draws, dropped - LEVELS // 2, out=torch.empty(x.shape, dtype=x.dtype))
