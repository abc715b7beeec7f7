"""Schedules by information of nearest-neighbour processes, against dense matrices."""

import numpy as np
import pytest
import torch
from enumeration import TYPES, divergence, entropy
from neighbour_cases import embeddings, graph_of
from scipy.linalg import expm

from difformer_plugin.diffusion.categorical import neighbours
from difformer_plugin.diffusion.categorical.graph import rate_matrix
from difformer_plugin.diffusion.categorical.neighbours import NearestNeighbour, neighbour_tables


@pytest.mark.parametrize("count,k", [(TYPES, 1), (40, 3)])
def test_mutual_information_falls_evenly(count, k):
    """From all of H(x_0) to nothing, by dense matrices."""
    unigram = torch.rand(count, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    unigram = (unigram**3 / (unigram**3).sum()).numpy()
    edges, weights, table = neighbour_tables(
        embeddings(count), torch.tensor(7 * unigram), k, "mutual_information"
    )
    rates = rate_matrix(edges, weights, count).toarray()
    process = NearestNeighbour(edges, weights, table, count)
    assert table[0] == 1 and table[-1] == 0 and (table.diff() < 0).all()
    times = torch.linspace(0, 1, len(table), dtype=torch.float64)[1:-1]
    for t, amount in list(zip(times.tolist(), process.cumulative_rate(times).tolist()))[::6]:
        matrix = expm(amount * rates)
        # I(x_t; x_0) = E KL(q(x_t | x_0) || q(x_t))
        information = unigram @ divergence(matrix.clip(0), unigram @ matrix)
        assert information / entropy(unigram) == pytest.approx(1 - t, abs=3e-4)


def test_a_sample_of_types_suffices_for_the_information(monkeypatch):
    """Of 150 types with Zipf's frequencies; a sample of so many is all of them."""
    process, rates = graph_of(150, k=4)
    unigram = 1 / (1 + torch.arange(150, dtype=torch.float64))
    unigram = (unigram / unigram.sum()).roll(50)
    amounts, found = neighbours.measured_information(process, unigram)
    monkeypatch.setattr(neighbours, "SAMPLED_TYPES", 50)
    _, sampled = neighbours.measured_information(process, unigram)
    both = min(len(found), len(sampled))
    np.testing.assert_allclose(sampled[:both], found[:both], atol=0.01 * entropy(unigram))
    assert abs(sampled[:both] - found[:both]).max() > 0  # it was a sample
    for amount, value in list(zip(amounts, found))[::12]:
        matrix = expm(amount * rates).clip(0)
        exact = unigram.numpy() @ divergence(matrix, unigram.numpy() @ matrix)
        assert value == pytest.approx(exact, abs=1e-9)


def test_data_of_one_type_tells_nothing():
    """There is no information to lose, at any time."""
    edges, weights, table = neighbour_tables(
        embeddings(6), torch.eye(6)[2], 2, "mutual_information"
    )
    assert table.isfinite().all() and table[0] == 1 and table[-1] == 0
    assert (table.diff() <= 0).all()
