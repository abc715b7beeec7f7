"""Nearest-neighbour processes for the tests, with their rates as dense matrices."""

import numpy as np
import torch

from difformer_plugin.diffusion.categorical.graph import rate_matrix
from difformer_plugin.diffusion.categorical.neighbours import NearestNeighbour, neighbour_tables

FALLING = torch.linspace(1, 0, 1025, dtype=torch.float64)


def embeddings(count):
    return torch.from_numpy(np.random.default_rng(count).standard_normal((count, 4)))


def graph_of(count, k=2, table=FALLING, dtype=torch.float64):
    """A process, and its rates as a dense matrix."""
    edges, weights, _ = neighbour_tables(embeddings(count), torch.ones(count), k, "log_linear")
    process = NearestNeighbour(edges, weights, table, count, dtype)
    return process, rate_matrix(edges, weights, count).toarray()


def line_of(count, table=FALLING, dtype=torch.float64):
    """Types in a row: the far ones are as good as unreachable."""
    edges = torch.stack([torch.arange(count - 1), torch.arange(1, count)], -1)
    weights = torch.ones(count - 1, dtype=torch.float64)
    process = NearestNeighbour(edges, weights, table, count, dtype)
    return process, rate_matrix(edges, weights, count).toarray()


def close(actual, expected, **tolerance):
    expected = torch.as_tensor(np.ascontiguousarray(expected))
    torch.testing.assert_close(actual, expected, **(tolerance or {"rtol": 1e-9, "atol": 1e-12}))
