"""Operations of matrix products, counted, and how many a second this machine can do."""

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

SIDES = {"cpu": 2048, "cuda": 8192}  # of the square product that the rate is measured with
ROWS = 4096  # tokens of the product of the model's own shape


def _attention(query, key, value, *args, out_shape=None, **kwargs):
    """Both products of an attention: torch counts them on a GPU only."""
    return sdpa_flop_count(query, key, value)


def _product(a, b):
    """Operations of a product (n, m) x (m, k), of which torch takes sparse ones to be dense."""
    entries = a.numel() if a.layout == torch.strided else a._nnz()
    return 2 * entries * b.shape[1]


def _mm(a, b, *args, **kwargs):
    return _product(a, b)


def _addmm(total, a, b, *args, **kwargs):
    return _product(a, b)


_mm._get_raw = _addmm._get_raw = True  # torch's mark of formulas that want tensors, not shapes
FORMULAS = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten.mm: _mm,
    torch.ops.aten.addmm: _addmm,
}


def count(function):
    """Floating-point operations of all matrix products in a call; an addition counts as one.

    Element by element operations (activations, norms, softmax, noise) are not counted.
    """
    with FlopCounterMode(display=False, custom_mapping=FORMULAS) as counter:
        function()
    return counter.get_total_flops()


class MatrixRate:
    """The best rate seen of matrix products, operations/s.

    Args:
        shape: (C, H) of the model's feed-forward layers: the better of a square product and of
            tokens with such a matrix counts.
        dtype: of the products.
    """

    def __init__(self, shape, dtype, device):
        side, (dim, hidden) = SIDES[device.type], shape
        make = {"device": device, "dtype": dtype}
        self.pairs = [
            (torch.rand(side, side, **make), torch.rand(side, side, **make)),
            (torch.rand(ROWS, dim, **make), torch.rand(dim, hidden, **make)),
        ]
        self.best, self.device = 0.0, device

    def measure(self):
        """Measure once more."""
        from difformer_plugin.bench.measuring import seconds

        for a, b in self.pairs:
            for _ in range(2):
                taken, _ = seconds(lambda a=a, b=b: a @ b, self.device)
                self.best = max(self.best, 2 * len(a) * a.shape[1] * b.shape[1] / taken)
