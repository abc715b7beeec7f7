"""exp(B R) v for a sparse rate matrix R and many rows v, by a Chebyshev series; no dense matrix.

With X = 1 + (2 / greatest) R, whose eigenvalues lie in [-1, 1], and z = B greatest / 2 it is
exp(-z) exp(z X) = ive_0(z) + 2 sum_k ive_k(z) T_k(X), with ive_k(z) = exp(-z) I_k(z). It takes some
sqrt(74 z) terms where z is large, and the error is some 1e-15 of the vector's norm.
"""

import warnings

import numpy as np
import scipy.sparse as sp
import torch
from scipy.special import ive
from torch.autograd.function import once_differentiable

COEFFICIENT = 1e-16  # the series ends where its coefficients stay below
# numbers in one vector of the recursion: what stays in a core's cache, or what fills a GPU
CPU_ENTRIES, GPU_ENTRIES = 2**18, 2**24


class Exponential:
    """exp(B R), a function of v and B.

    Args:
        rates: R, symmetric SciPy matrix (n, n), rows summing to 0.
        greatest: a bound on the eigenvalues of -R.
        forgetting: from this B on it is 11^T / n.
    """

    def __init__(self, rates, greatest, forgetting):
        self.rates, self.greatest, self.forgetting = rates, greatest, forgetting
        self._matrices = {}  # X by device, made when it is needed

    def __getstate__(self):
        return {**self.__dict__, "_matrices": {}}  # torch cannot copy sparse CSR matrices

    def __call__(self, v, *amounts):
        """exp(B_m R) v_m for each row m, by one recursion for all of the amounts.

        Rows with more terms come first and rows of like length go together, so that few wait for
        the longest.

        Args:
            v: (M, n).
            amounts: float64 (M,) each, B_m.
        Returns:
            float64 (M, n) for each of the amounts.
        """
        v = v.double()
        found = [torch.empty_like(v) for _ in amounts]
        series = [self._coefficients(amount.cpu()) for amount in amounts]
        lengths = torch.stack([length for _, length in series]).amax(0)
        matrix = self._matrix(v.device)
        entries = CPU_ENTRIES if v.device.type == "cpu" else GPU_ENTRIES
        for rows in lengths.argsort(descending=True).split(max(1, entries // v.shape[1])):
            there = rows.to(v.device)
            parts = [coefficients[:, rows].to(v.device) for coefficients, _ in series]
            sums = chebyshev(matrix, v[there].T.contiguous(), parts, lengths[rows])
            for whole, part in zip(found, sums):
                whole[there] = part.T
        for whole, amount in zip(found, amounts):
            forgets = amount >= self.forgetting
            whole[forgets] = v[forgets].mean(-1, keepdim=True)
        return found

    def _coefficients(self, amount):
        """The series' coefficients, float64 (K, M), and how many each row needs, (M,): none of
        those that forget."""
        amount, which = amount.unique(return_inverse=True)  # one a sentence, not one a token
        amount = amount.numpy()
        needed = amount < self.forgetting
        z = np.where(needed, amount, 0) * self.greatest / 2
        # from k^2 / (2 z + k) = digits on the coefficients are too small
        digits = -np.log(COEFFICIENT)
        most = (digits + np.sqrt(digits**2 + 8 * digits * z.max(initial=0))) / 2
        orders = np.arange(int(most) + 2)[:, None]
        values = np.where(orders == 0, 1, 2) * ive(orders, z) * needed
        counts = (values > COEFFICIENT).sum(0)  # they fall, at least from order 1 on
        return torch.from_numpy(values)[:, which], torch.from_numpy(counts)[which]

    def _matrix(self, device):
        if device not in self._matrices:
            scaled = self.rates * (2 / self.greatest) + sp.eye_array(self.rates.shape[0])
            self._matrices[device] = to_torch(scaled.tocsr()).to(device)
        return self._matrices[device]


class Acting(torch.autograd.Function):
    """exp(B_m R) v_m as a function of v; R is symmetric, so it is its own gradient."""

    @staticmethod
    def forward(ctx, v, exponential, amount):
        ctx.exponential, ctx.amount = exponential, amount
        return exponential(v, amount)[0].to(v.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        return ctx.exponential(grad, ctx.amount)[0].to(grad.dtype), None, None


def to_torch(matrix):
    """A SciPy CSR matrix as torch's."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta state")
        return torch.sparse_csr_tensor(
            torch.from_numpy(matrix.indptr.astype(np.int32)),
            torch.from_numpy(matrix.indices.astype(np.int32)),
            torch.from_numpy(matrix.data),
            matrix.shape,
            check_invariants=True,
        )


def chebyshev(matrix, v, coefficients, lengths):
    """sum_k c_k T_k(X) v for each set of coefficients, by T_{k+1} = 2 X T_k - T_{k-1}.

    The columns of v that are done are dropped each time half of them are.

    Args:
        matrix: X, sparse (n, n).
        v: (n, M), overwritten.
        coefficients: (K, M) each.
        lengths: int64 (M,), falling: how many coefficients a column needs.
    Returns:
        (n, M) for each set.
    """
    sums = [torch.zeros_like(v) for _ in coefficients]
    before, here, width = None, v, len(lengths)
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
