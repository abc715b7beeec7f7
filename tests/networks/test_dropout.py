"""Dropout's masks: their rate, their independence, and what they do to values and gradients."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from difformer_plugin.bench.training_speedups import PLAIN, training_with
from difformer_plugin.networks import dropout as module
from difformer_plugin.networks.dropout import Dropout, keep_mask

COUNT = 200_000


@pytest.mark.parametrize("p", [0.1, 0.3, 0.5, 1e-5, 0.99999])
def test_a_share_p_of_all_random_numbers_drops_values(p, monkeypatch):
    """Of all 16-bit numbers, each given once, 65536 p drop a value, up to rounding."""

    class EachOnce:
        def __init__(self, seed):
            pass

        def random_raw(self, size):
            return np.arange(2**16, dtype=np.uint16).view(np.uint64)[:size]

    monkeypatch.setattr(module.np.random, "SFC64", EachOnce)
    out = Dropout(p)(torch.ones(2**8, 2**8))
    dropped = (out == 0).sum().item()
    assert abs(dropped - p * 2**16) <= 0.5
    # what stays is scaled, so that the mean does not change
    assert out.double().mean().item() == pytest.approx(1, rel=1e-6)


@pytest.mark.parametrize("p", [0.1, 0.3, 0.9])
def test_mean_and_variance(p):
    """E = x and Var = x^2 p / (1 - p), as in the definition."""
    out = Dropout(p)(torch.full((COUNT,), 2.0)).double()
    variance = 4 * p / (1 - p)
    assert abs(out.mean().item() - 2) < 4 * math.sqrt(variance / COUNT)
    fourth = 2**4 * (p**4 / (1 - p) ** 3 + p)
    assert abs(out.var().item() - variance) < 5 * math.sqrt((fourth + variance**2) / COUNT)
    assert len(out.unique()) == 2


def test_sites_and_neighbours_are_independent():
    p, x = 0.3, torch.ones(COUNT)
    dropout = Dropout(p)
    first, second = (dropout(x) == 0).double(), (dropout(x) == 0).double()
    spread = 4 * p * (1 - p) / math.sqrt(COUNT)
    for other in (second, first.roll(1), first.roll(2), first.roll(3), first.roll(4)):
        assert abs(((first - p) * (other - p)).mean().item()) < spread


def test_the_seed_of_torch_repeats_masks():
    dropout, x = Dropout(0.5), torch.ones(1001)
    torch.manual_seed(7)
    first, second = dropout(x), dropout(x)
    torch.manual_seed(7)
    assert torch.equal(dropout(x), first) and torch.equal(dropout(x), second)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("shape", [(7,), (3, 5), (2, 3, 4), (0, 4)])
def test_gradients_are_the_mask(shape):
    x = torch.randn(shape, requires_grad=True)
    residual = torch.randn(shape, requires_grad=True)
    torch.manual_seed(2)
    out = Dropout(0.4)(x, residual)
    torch.manual_seed(2)
    factors = Dropout(0.4)(torch.ones(shape))
    torch.testing.assert_close(out, residual + x * factors)
    weights = torch.randn(shape)
    (out * weights).sum().backward()
    torch.testing.assert_close(x.grad, weights * factors)
    torch.testing.assert_close(residual.grad, weights)


def test_evaluation_drops_nothing():
    dropout, x, residual = Dropout(0.5).eval(), torch.randn(9), torch.randn(9)
    assert torch.equal(dropout(x), x) and torch.equal(dropout(x, residual), residual + x)


@pytest.mark.parametrize("p, kept", [(0.0, 1), (1e-9, 1), (1.0, 0), (1 - 1e-9, 0)])
def test_all_or_nothing(p, kept):
    x = torch.randn(50)
    assert torch.equal(Dropout(p)(x), x * kept) and torch.equal(Dropout(p)(x, x), x * kept + x)


def test_half_precision_input_with_a_float32_residual():
    """Under autocast the input is in half precision, and the residual stays float32."""
    x, residual = torch.randn(64, 8).bfloat16().requires_grad_(), torch.randn(64, 8)
    residual.requires_grad_()
    out = Dropout(0.5)(x, residual)
    out.sum().backward()
    assert (out.dtype, x.grad.dtype, residual.grad.dtype) == (
        torch.float32,
        torch.bfloat16,
        torch.float32,
    )
    torch.testing.assert_close(out, residual + x.float() * x.grad.float())
    assert Dropout(0.5)(x).dtype == torch.bfloat16


def test_transposed_tensors():
    x = torch.randn(6, 4).T
    out = Dropout(0.5)(x)
    assert ((out == 0) | torch.isclose(out, 2 * x)).all() and (out == 0).any()


def test_without_the_speedup_it_is_the_dropout_of_torch():
    dropout, x = Dropout(0.3), torch.randn(100)
    with training_with(PLAIN, dropout):
        torch.manual_seed(4)
        ours = dropout(x)
    torch.manual_seed(4)
    assert torch.equal(ours, F.dropout(x, 0.3))
    torch.manual_seed(4)
    assert not torch.equal(dropout(x), ours)


def test_masks_hold_zeros_and_ones():
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        mask = keep_mask(torch.empty(33, 3, dtype=dtype), 2**15)
        assert mask.dtype == dtype and mask.unique().tolist() == [0, 1]
