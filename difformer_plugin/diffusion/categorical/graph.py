"""The nearest-neighbour graph of embeddings, made connected, and its rates (D3PM, App. A.2.4).

Distances are cosine distances: the length of an embedding tells how frequent a type is rather than
what it means, and by Euclidean distance the short ones would be neighbours of almost everything.
Similarities are computed in float64 and compared in float32, so that equal embeddings tie whatever
the order of summation; of tied types the one with the lower index is nearer.
"""

import numpy as np
import scipy.sparse as sp
import torch
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import LinearOperator, eigsh

from difformer_plugin.errors import UserError

ENTRIES = 2**24  # similarities held at a time
DENSE = 200  # as many types need no sparse eigensolver
TOLERANCE = 1e-6  # of eigenvalues, relative


def nearest_neighbours(embeddings, k):
    """The k nearest other types of each type; all n - 1 where k is more.

    Args:
        embeddings: (n, D).
        k: at least 1.
    Returns:
        int64 (n, k), nearest first.
    Raises:
        UserError: a value out of its range.
    """
    if k < 1:
        raise UserError(f"the nearest-neighbour process needs 1 neighbour or more, not {k}")
    directions = unit(embeddings)
    count = len(directions)
    k = min(k, count - 1)
    found = torch.empty(count, k, dtype=torch.int64)
    for rows in chunks(torch.arange(count), count):
        similar = (directions[rows] @ directions.T).float()
        similar[torch.arange(len(rows)), rows] = -torch.inf
        values, nearest = similar.topk(k)
        # topk is free to choose among the types that tie for the last place: choose for it
        last = values[:, -1:]
        above, level = similar > last, similar == last
        tied = level.sum(-1) > (values == last).sum(-1)
        for row in tied.nonzero()[:, 0].tolist():
            nearer, equal = above[row].nonzero()[:, 0], level[row].nonzero()[:, 0]
            nearest[row] = torch.cat([nearer, equal[: k - len(nearer)]])
        nearest = nearest.sort(-1).values
        order = similar.gather(1, nearest).sort(dim=-1, descending=True, stable=True).indices
        found[rows] = nearest.gather(1, order)
    return found


def unit(embeddings):
    """The directions of embeddings, float64 (n, D); 0 stays 0, as similar to all as to none."""
    directions = torch.as_tensor(embeddings).detach().cpu().double()
    if len(directions) < 2:
        raise UserError("the nearest-neighbour process needs a vocabulary of 2 types or more")
    if not directions.isfinite().all():
        raise UserError(
            "the embeddings for the nearest-neighbour process contain values that are not finite"
        )
    return torch.nn.functional.normalize(directions, dim=-1, eps=1e-150)


def chunks(rows, columns):
    """Rows in groups of at most ENTRIES entries."""
    return rows.split(max(1, ENTRIES // columns))


def neighbour_graph(embeddings, k):
    """G + G^T of the k-nearest-neighbour graph G, joined where it falls apart.

    Returns:
        edges: int64 (E, 2), each once, its lower end first, sorted.
        weights: float64 (E,), 2 where both ends are among the other's neighbours and 1 elsewhere.
    """
    neighbours = nearest_neighbours(embeddings, k)
    count, k = neighbours.shape
    source = torch.arange(count).repeat_interleave(k)
    ends = torch.stack([source, neighbours.reshape(-1)], dim=-1)
    edges, weights = torch.unique(ends.sort(-1).values, dim=0, return_counts=True)
    return joined(embeddings, edges, weights.double())


def joined(embeddings, edges, weights):
    """A graph made connected: one that falls apart has no uniform limit.

    Boruvka's algorithm: while there is more than one component, each but the largest gets a link
    to the type nearest to it outside of it. So the links are those of a minimum spanning tree over
    the components: no other links that join them are shorter in all. A link's weight is 2, as if
    both of its ends were among the other's neighbours.

    Args, Returns:
        edges: int64 (E, 2) and weights: float64 (E,), as `neighbour_graph` has them.
    """
    directions = unit(embeddings)
    while True:
        parts, of = components(edges, len(directions))
        if parts == 1:
            return edges, weights
        links = shortest_links(directions, of)
        edges = torch.cat([edges, links])
        weights = torch.cat([weights, torch.full((len(links),), 2.0, dtype=torch.float64)])
        order = torch.argsort(edges[:, 0] * len(directions) + edges[:, 1])
        edges, weights = edges[order], weights[order]


def components(edges, count):
    """The number of components, and the component of each type, int64 (n,)."""
    i, j = edges.T.numpy()
    parts, of = connected_components(sp.coo_matrix((np.ones(len(i)), (i, j)), (count, count)))
    return parts, torch.from_numpy(of).long()


def shortest_links(directions, of):
    """For each component but the largest its shortest link out, int64 (L, 2), each once.

    Ties go to the link with the lower lower end, then to the lower higher end, so that no
    circle of ties arises.
    """
    outside = (of != of.bincount().argmax()).nonzero()[:, 0]
    found, values = [], []
    for rows in chunks(outside, len(of)):
        similar = (directions[rows] @ directions.T).float()
        similar.masked_fill_(of[rows, None] == of, -torch.inf)
        nearest = torch.from_numpy(similar.numpy().argmax(-1))  # the first of those that tie
        values.append(similar.gather(1, nearest[:, None])[:, 0])
        found.append(torch.stack([rows, nearest], dim=-1))
    found, values = torch.cat(found), torch.cat(values)
    links = found.sort(-1).values
    # best link first in each component
    order = np.lexsort((links[:, 1], links[:, 0], -values, of[outside]))
    _, first = np.unique(of[outside].numpy()[order], return_index=True)
    return torch.unique(links[order[first]], dim=0)


def rate_matrix(edges, weights, count):
    """R: symmetric, rows summing to 0, a type being left at a mean rate of 1.

    Returns:
        scipy CSR matrix, float64 (n, n).
    """
    i, j = edges.cpu().T.numpy()
    weights = weights.cpu().numpy()
    half = sp.coo_matrix((weights, (i, j)), (count, count)).tocsr()
    between = half + half.T
    leaving = np.asarray(between.sum(1)).ravel()
    return ((between - sp.diags(leaving)) / leaving.mean()).tocsr()


def spectrum(rates):
    """The spectral gap, -R's least eigenvalue but 0, and a close upper bound on its greatest.

    The gap is the rate at which the slowest mode decays.
    """
    count = rates.shape[0]
    bound = -2 * rates.diagonal().min()  # Gershgorin
    if count <= DENSE:
        values = np.linalg.eigvalsh(-rates.toarray())
        return float(values[1]), float(values[-1])

    def lifted(v):  # the constant vector's eigenvalue is moved from 0 to the other end
        return bound * v.mean() - rates @ v

    shifted = LinearOperator(rates.shape, matvec=lifted, dtype=np.float64)
    start = np.random.default_rng(0).standard_normal(count)  # the same numbers at every load
    options = {"k": 1, "v0": start, "tol": TOLERANCE, "return_eigenvectors": False}
    (gap,) = eigsh(shifted, which="SA", ncv=64, **options)
    (greatest,) = eigsh(-rates, which="LA", **options)
    return float(gap), float(min(greatest * (1 + 10 * TOLERANCE), bound))
