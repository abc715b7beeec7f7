"""Dropout (Srivastava et al., 2014) whose masks cost little on a CPU."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

LEVELS = 2**16  # of the random numbers that decide what stays


class Dropout(nn.Dropout):
    """torch's, which draws with one thread, element by element, on a CPU: there, masks of our own.

    An element is dropped with probability p, rounded to 1/65536, and scaled by the inverse of what
    that leaves. torch's generator seeds the masks, so that `torch.manual_seed` repeats them.
    """

    def forward(self, x, residual=None):
        """x with elements dropped in training, added to the residual (of the same shape) if any."""
        dropped = round(self.p * LEVELS)
        ours = x.device.type == "cpu" and 0 < dropped < LEVELS
        if ours and self.training:
            return _Drop.apply(x, residual, dropped)
        x = F.dropout(x, self.p, self.training)
        return x if residual is None else residual + x


class _Drop(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, residual, dropped):
        keep, scale = keep_mask(x, dropped), LEVELS / (LEVELS - dropped)
        ctx.save_for_backward(keep)
        ctx.scale, ctx.dtype = scale, x.dtype
        if residual is None:
            return (x * keep).mul_(scale)
        return torch.addcmul(residual, x.to(residual), keep.to(residual), value=scale)

    @staticmethod
    def backward(ctx, gradient):
        (keep,) = ctx.saved_tensors
        of_x = (gradient.to(ctx.dtype) * keep).mul_(ctx.scale)
        return of_x, gradient if ctx.needs_input_grad[1] else None, None


def keep_mask(x, dropped):
    """1 where an element of x stays and 0 where not, in the type of x.

    Args:
        dropped: of `LEVELS` equally likely random numbers, how many drop an element.
    """
    seed = int(torch.randint(2**63 - 1, ()))
    words = np.random.SFC64(seed).random_raw(-(-x.numel() // 4))  # of 64 bits
    draws = torch.from_numpy(words.view(np.int16))[: x.numel()].view(x.shape)
    # written as numbers at once: kernels that read or write a bool for each number are slow
    return torch.ge(draws, dropped - LEVELS // 2, out=torch.empty(x.shape, dtype=x.dtype))
