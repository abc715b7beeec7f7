"""exp(B R) v for a sparse rate matrix R and many rows v, by a Chebyshev series; no dense matrix.

Let X = I + (2 / greatest) R, whose eigenvalues lie in [-1, 1], and z = B greatest / 2. Then
exp(B R) = exp(-z) exp(z X) = ive_0(z) + 2 sum_k ive_k(z) T_k(X), where ive_k(z) = exp(-z) I_k(z)
with the modified Bessel functions I_k. For large z it takes about sqrt(74 z) terms. The error is
about 1e-15 of the vector's norm.
"""

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.autograd.function import once_differentiable

if TYPE_CHECKING:
    import scipy.sparse as sp

MIN_COEFFICIENT = 1e-16  # the series ends where all further coefficients are smaller
# Entries of one matrix of the recursion: what fits a core's cache, and what fills a GPU.
CPU_ENTRIES, GPU_ENTRIES = 2**18, 2**24


class Exponential:
    """exp(B R) v, a function of v and B.

    Args:
        rates: R, symmetric SciPy matrix (n, n), whose rows sum to 0.
        greatest: an upper bound on the eigenvalues of -R.
        uniform_from: the B from which on exp(B R) is taken to be 11^T / n.
    """

    def __init__(self, rates: "sp.sparray | sp.spmatrix", greatest: float, uniform_from: float):
        self.rates, self.greatest, self.uniform_from = rates, greatest, uniform_from
        self._matrices = {}  # X by device, made at first use

    def __getstate__(self):
        return {**self.__dict__, "_matrices": {}}  # torch cannot copy sparse CSR matrices

    def __call__(self, v: torch.Tensor, *amounts: torch.Tensor) -> list[torch.Tensor]:
        """exp(B_m R) v_m for each row m, by one recursion for all `amounts`.

        Rows are sorted by the number of terms that they need, so that rows of one group need about
        the same.

        Args:
            v: (M, n).
            amounts: float64 (M,) each, B_m.
        Returns:
            float64 (M, n) for each of `amounts`.
        """
        v = v.double()
        results = [torch.empty_like(v) for _ in amounts]
        series = [self._coefficients(amount.cpu()) for amount in amounts]
        lengths = torch.stack([length for _, length in series]).amax(0)
        matrix = self._matrix(v.device)
        entries = CPU_ENTRIES if v.device.type == "cpu" else GPU_ENTRIES
        for rows in lengths.argsort(descending=True).split(max(1, entries // v.shape[1])):
            on_device = rows.to(v.device)
            parts = [coefficients[:, rows].to(v.device) for coefficients, _ in series]
            sums = chebyshev(matrix, v[on_device].T.contiguous(), parts, lengths[rows])
            for result, part in zip(results, sums):
                result[on_device] = part.T
        for result, amount in zip(results, amounts):
            uniform = amount >= self.uniform_from
            result[uniform] = v[uniform].mean(-1, keepdim=True)
        return results

    def _coefficients(self, amount):
        """Coefficients of the series, float64 (K, M), and how many each row needs, int64 (M,).

        Rows from `uniform_from` on need none.
        """
        from scipy.special import ive  # slow to import

        # the tokens of a sentence share a time, so that few values differ
        amount, which = amount.unique(return_inverse=True)
        amount = amount.numpy()
        needed = amount < self.uniform_from
        z = np.where(needed, amount, 0) * self.greatest / 2
        # coefficients are too small from the k on with k^2 / (2 z + k) = digits
        digits = -np.log(MIN_COEFFICIENT)
        max_order = (digits + np.sqrt(digits**2 + 8 * digits * z.max(initial=0))) / 2
        orders = np.arange(int(max_order) + 2)[:, None]
        values = np.where(orders == 0, 1, 2) * ive(orders, z) * needed
        counts = (values > MIN_COEFFICIENT).sum(0)  # they fall, at least from order 1 on
        return torch.from_numpy(values)[:, which], torch.from_numpy(counts)[which]

    def _matrix(self, device):
        if device not in self._matrices:
            import scipy.sparse as sp  # slow to import

            scaled = self.rates * (2 / self.greatest) + sp.eye_array(self.rates.shape[0])
            self._matrices[device] = to_torch(scaled.tocsr()).to(device)
        return self._matrices[device]


class ApplyExponential(torch.autograd.Function):
    """exp(B_m R) v_m as a differentiable function of v. R is symmetric, and so is its Jacobian."""

    @staticmethod
    def forward(ctx, v, exponential, amount):
        ctx.exponential, ctx.amount = exponential, amount
        return exponential(v, amount)[0].to(v.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        return ctx.exponential(grad, ctx.amount)[0].to(grad.dtype), None, None


def to_torch(matrix: "sp.csr_array | sp.csr_matrix") -> torch.Tensor:
    """A SciPy CSR matrix as a sparse CSR tensor."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta state")
        return torch.sparse_csr_tensor(
            torch.from_numpy(matrix.indptr.astype(np.int32)),
            torch.from_numpy(matrix.indices.astype(np.int32)),
            torch.from_numpy(matrix.data),
            matrix.shape,
            check_invariants=True,
        )


def chebyshev(
    matrix: torch.Tensor, v: torch.Tensor, coefficients: list[torch.Tensor], lengths: torch.Tensor
) -> list[torch.Tensor]:
    """sum_k c_k T_k(X) v for each set of coefficients, by T_{k+1} = 2 X T_k - T_{k-1}.

    Finished columns of v are dropped each time they are half of all.

    Args:
        matrix: X, sparse (n, n).
        v: (n, M), overwritten.
        coefficients: (K, M) each.
        lengths: int64 (M,), falling: the number of coefficients that each column needs.
    Returns:
        (n, M) for each set.
    """
    sums = [torch.zeros_like(v) for _ in coefficients]
    before: Any = None
    here, width = v, len(lengths)
    for k in range(int(lengths[0]) if width else 0):
        left = int((lengths > k).sum())
        if 2 * left <= width:
            width = left
            here = here[:, :width].contiguous()
            before = before[:, :width].contiguous() if k > 1 else None
        if k == 1:
            before, here = here, matrix @ here
        elif k > 1:
            torch.addmm(before, matrix, here, beta=-1, alpha=2, out=before)
            before, here = here, before
        for total, c in zip(sums, coefficients):
            if k < len(c):
                total[:, :width].addcmul_(here, c[k, :width])
    return sums
