"""The graph of nearest neighbours against sorting all distances, spanning trees and dense rates."""

import numpy as np
import pytest
import torch
from scipy.sparse.csgraph import connected_components, minimum_spanning_tree

from difformer_plugin.diffusion.categorical import graph
from difformer_plugin.diffusion.parameters import ParameterError


@pytest.fixture(params=[2**24, 100], ids=["at once", "in chunks"], autouse=True)
def entries(request, monkeypatch):
    monkeypatch.setattr(graph, "MAX_ENTRIES", request.param)


def embeddings(count, dim, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((count, dim)))


def clusters(seed):
    """Types in five narrow bundles of directions, as (n, 4), and in no order."""
    random = np.random.default_rng(seed)
    sizes = random.integers(4, 9, 5)
    centres = np.repeat(random.standard_normal((5, 4)), sizes, axis=0)
    points = centres + 0.02 * random.standard_normal(centres.shape)
    lengths = random.uniform(0.1, 10, (len(points), 1))
    return torch.from_numpy(random.permutation(points * lengths))


def cosines(points):
    points = np.asarray(points)
    points = points / np.linalg.norm(points, axis=1, keepdims=True)
    return points @ points.T


def sorted_neighbours(points, k):
    """By sorting all; ties (to 9 digits) go to the lower index."""
    similar = cosines(points).round(9)
    np.fill_diagonal(similar, -np.inf)
    return np.argsort(-similar, axis=1, kind="stable")[:, :k]


def adjacency(edges, weights, count):
    dense = np.zeros((count, count))
    for (i, j), weight in zip(edges.tolist(), weights.tolist()):
        dense[i, j] += weight
        dense[j, i] += weight
    return dense


@pytest.mark.parametrize("k", [1, 4, 59])
def test_nearest_are_those_of_a_full_sort(k):
    points = embeddings(60, 8) * torch.rand(60, 1, dtype=torch.float64)
    found = graph.nearest_neighbours(points, k)
    assert found.dtype == torch.int64
    np.testing.assert_array_equal(found, sorted_neighbours(points, k))


@pytest.mark.parametrize("k", [1, 2, 5, 9])
def test_of_tied_types_the_first_are_nearest(k):
    """Copies of few vectors, of other lengths, and directions evenly around a circle."""
    copies = embeddings(4, 3)[torch.randint(4, (37,), generator=torch.Generator().manual_seed(0))]
    copies = copies * torch.tensor([0.5, 1, 2, 4], dtype=torch.float64).repeat(10)[:37, None]
    angles = torch.arange(24, dtype=torch.float64) * torch.pi / 12
    for points in (copies, torch.stack([angles.cos(), angles.sin()], -1), torch.ones(30, 2)):
        np.testing.assert_array_equal(
            graph.nearest_neighbours(points, k), sorted_neighbours(points, k)
        )


def test_more_neighbours_than_types_are_all_of_them():
    points = embeddings(6, 3)
    np.testing.assert_array_equal(
        graph.nearest_neighbours(points, 20), sorted_neighbours(points, 5)
    )
    edges, weights = graph.neighbour_graph(points, 20)
    np.testing.assert_array_equal(adjacency(edges, weights, 6), 2 * (1 - np.eye(6)))


def test_two_types_and_types_without_a_direction():
    edges, weights = graph.neighbour_graph(torch.zeros(2, 3), 1)
    assert edges.tolist() == [[0, 1]] and weights.tolist() == [2]
    points = embeddings(8, 3)
    points[2:5] = 0
    edges, weights = graph.neighbour_graph(points, 2)
    assert connected_components(adjacency(edges, weights, 8))[0] == 1


def test_bad_input_is_refused():
    with pytest.raises(ParameterError, match="^neighbours must be at least 1, not 0"):
        graph.nearest_neighbours(embeddings(5, 2), 0)
    with pytest.raises(ParameterError, match="vocab_size must be at least 2 .*, not 1"):
        graph.nearest_neighbours(embeddings(1, 2), 1)
    with pytest.raises(ParameterError, match="embeddings must be finite, not nan"):
        graph.nearest_neighbours(torch.tensor([[1.0], [float("nan")]]), 1)


def test_the_graph_is_the_sum_of_both_directions():
    points = embeddings(40, 5)
    directed = np.zeros((40, 40))
    directed[np.arange(40)[:, None], sorted_neighbours(points, 6)] = 1
    assert connected_components(directed)[0] == 1  # nothing to join
    edges, weights = graph.neighbour_graph(points, 6)
    assert (edges[:, 0] < edges[:, 1]).all()
    np.testing.assert_array_equal(adjacency(edges, weights, 40), directed + directed.T)


@pytest.mark.parametrize("seed", range(6))
def test_components_are_joined_by_the_shortest_links(seed):
    """The links are a minimum spanning tree of the components' least distances."""
    points, k = clusters(seed), 2
    count = len(points)
    directed = np.zeros((count, count))
    directed[np.arange(count)[:, None], sorted_neighbours(points, k)] = 1
    parts, of = connected_components(directed, directed=False)
    assert parts >= 5
    distance = 1 - cosines(points)
    between = np.zeros((parts, parts))
    for a in range(parts):
        for b in range(a):
            between[a, b] = distance[np.ix_(of == a, of == b)].min()
    tree = minimum_spanning_tree(between).toarray()

    edges, weights = graph.neighbour_graph(points, k)
    joined = adjacency(edges, weights, count)
    assert connected_components(joined)[0] == 1
    added = np.triu(joined - directed - directed.T)
    assert set(added[added != 0]) == {2}
    np.testing.assert_allclose(np.sort(distance[added != 0]), np.sort(tree[tree != 0]), atol=1e-12)


def test_ties_between_components_make_no_circles():
    """Copies of four vectors at right angles: all links are of one length."""
    points = torch.eye(4, dtype=torch.float64).repeat(5, 1)
    edges, weights = graph.neighbour_graph(points, 2)
    dense = adjacency(edges, weights, 20)
    assert connected_components(dense)[0] == 1
    across = cosines(points)[tuple(edges.T.numpy())] < 0.5
    assert edges[torch.from_numpy(across)].tolist() == [[0, 1], [0, 2], [0, 3]]


def test_rates_are_symmetric_and_their_mean_is_one():
    edges, weights = graph.neighbour_graph(embeddings(30, 4), 3)
    rates = graph.rate_matrix(edges, weights, 30).toarray()
    dense = adjacency(edges, weights, 30)
    away = rates - np.diag(np.diag(rates))
    np.testing.assert_allclose(away, dense / dense.sum() * 30, atol=1e-15)
    np.testing.assert_allclose(rates.sum(1), 0, atol=1e-15)
    assert -np.diag(rates).mean() == pytest.approx(1)


@pytest.mark.parametrize("count", [2, 40, 300])
def test_spectrum(count):
    """Of a dense solver; the greatest is a bound from above, and close."""
    rates = graph.rate_matrix(*graph.neighbour_graph(embeddings(count, 6), 5), count)
    gap, greatest = graph.spectrum(rates)
    values = np.linalg.eigvalsh(-rates.toarray())
    assert gap == pytest.approx(values[1], rel=1e-5)
    assert values[-1] * (1 - 1e-12) <= greatest <= values[-1] * (1 + 1e-4)
