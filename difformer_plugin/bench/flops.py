"""Count the operations of matrix products, and measure how many this machine does per second."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from difformer_plugin.bench import measurement

SQUARE_SIDES = {"cpu": 2048, "cuda": 8192}  # of the square matrices whose product is timed
NUM_TOKENS = 4096  # rows of the matrix that is multiplied with one of the model's shape


def _attention(query, key, value, *args, out_shape=None, **kwargs):
    """Operations of both products of an attention, which torch counts on GPUs only."""
    return sdpa_flop_count(query, key, value)


def _product(a, b):
    """Operations of a product (n, m) x (m, k); torch would count sparse matrices as dense."""
    entries = a.numel() if a.layout == torch.strided else a._nnz()
    return 2 * entries * b.shape[1]


def _mm(a, b, *args, **kwargs):
    return _product(a, b)


def _addmm(total, a, b, *args, **kwargs):
    return _product(a, b)


# torch then passes tensors, not shapes
_mm._get_raw = _addmm._get_raw = True  # type: ignore[attr-defined]
FORMULAS = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten.mm: _mm,
    torch.ops.aten.addmm: _addmm,
}


def count(function: Callable[[], Any]) -> int:
    """Floating-point operations of all matrix products in a call.

    A multiplication and an addition count as one each. Element-wise operations (activations,
    norms, softmax, noise) do not count.
    """
    with FlopCounterMode(display=False, custom_mapping=FORMULAS) as counter:
        function()
    return counter.get_total_flops()


class MatrixRate:
    """The best rate of matrix products measured so far.

    Two products are timed, and the faster one counts: of square matrices, and of tokens with a
    weight of the model's feed-forward layers.

    Args:
        shape: (C, H), model dimension and feed-forward dimension.
        dtype: of the matrices.
        device: on which they are multiplied.
    Attributes:
        best: operations per second; 0 before the first measurement.
    """

    def __init__(self, shape: tuple[int, int], dtype: torch.dtype, device: torch.device):
        side, (dim, hidden) = SQUARE_SIDES[device.type], shape
        make = {"device": device, "dtype": dtype}
        self.pairs = [
            (torch.rand(side, side, **make), torch.rand(side, side, **make)),
            (torch.rand(NUM_TOKENS, dim, **make), torch.rand(dim, hidden, **make)),
        ]
        self.best, self.device = 0.0, device

    def measure(self) -> None:
        """Time both products again, and update `best`."""
        for a, b in self.pairs:
            for _ in range(2):
                duration, _ = measurement.timed(partial(torch.matmul, a, b), self.device)
                self.best = max(self.best, 2 * len(a) * a.shape[1] * b.shape[1] / duration)
