"""exp(B R) v by its Chebyshev series against dense matrix exponentials."""

import numpy as np
import pytest
import torch
from neighbour_cases import close, graph_of
from scipy.linalg import expm

from difformer_plugin.diffusion.categorical import series


@pytest.mark.parametrize("entries", [2**18, 90], ids=["together", "in groups"])
@pytest.mark.parametrize("count", [2, 5, 40])
def test_exponential_of_each_row_by_its_own_amount(count, entries, monkeypatch):
    monkeypatch.setattr(series, "CPU_ENTRIES", entries)
    process, rates = graph_of(count)
    v = torch.from_numpy(np.random.default_rng(0).standard_normal((11, count)))
    first = [
        0,
        1e-15,
        1e-6,
        0.01,
        0.3,
        1,
        5,
        20,
        0.99 * process.exponential.uniform_from,
        1e9,
        np.inf,
    ]
    first = torch.tensor(first, dtype=torch.float64)
    second = first.roll(3)
    for amounts, found in zip((first, second), process.exponential(v, first, second)):
        for amount, row, result in zip(amounts.tolist(), v.numpy(), found):
            even = np.full((count, count), 1 / count)
            expected = row @ (expm(amount * rates) if amount < 1e8 else even)
            close(result, expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("z", [0, 1e-9, 1e-3, 1, 30, 1e4, 1e6])
def test_the_series_is_cut_where_nothing_is_left(z):
    """At X = 1, where every T_k is 1, it is 1; `ive` itself is right to some 1e-14."""
    exponential = series.Exponential(None, 2.0, 1e9)
    coefficients, (length,) = exponential._coefficients(torch.tensor([z], dtype=torch.float64))
    assert float(coefficients[:length].sum()) == pytest.approx(1, abs=5e-14)
    assert length < len(coefficients) <= 1.2 * length + 40


def test_torch_agrees():
    """Its matrix exponential is right to some 1e-12."""
    process, rates = graph_of(40)
    amount = torch.full((40,), 2.0, dtype=torch.float64)
    (found,) = process.spread(torch.arange(40), amount)
    close(found, torch.linalg.matrix_exp(2 * torch.from_numpy(rates)), rtol=0, atol=1e-11)


def test_what_is_forgotten_early_is_even_to_single_precision():
    """From both sides of the threshold."""
    process, rates = graph_of(40)
    assert abs(40 * expm(process.exponential.uniform_from * rates) - 1).max() < 1e-8
    sides = process.exponential.uniform_from * torch.tensor(
        [1 - 1e-9, 1 + 1e-9], dtype=torch.float64
    )
    found = [process.spread(torch.arange(40), side.expand(40))[0] for side in sides]
    assert 0 < abs(found[0] - found[1]).max() < 1e-8 / 40
