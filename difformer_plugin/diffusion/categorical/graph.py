"""The nearest-neighbour graph of embeddings, made connected, and its rates (D3PM, App. A.2.4).

Distances are cosine distances. The length of an embedding tells how frequent a type is rather than
what it means, and by Euclidean distance short embeddings would be neighbours of almost every type.
Similarities are computed in float64 and compared in float32, so that equal embeddings tie for any
order of summation; of tied types the one with the lower index counts as nearer.
"""

from typing import TYPE_CHECKING

import numpy as np
import torch

from difformer_plugin.diffusion.parameters import ParameterError

if TYPE_CHECKING:
    import scipy.sparse as sp

MAX_ENTRIES = 2**24  # similarities held at a time
MAX_DENSE_TYPES = 200  # up to so many types, a dense eigensolver is used
EIGENVALUE_TOLERANCE = 1e-6  # relative
LINK_WEIGHT = 2.0  # of links between components: as if each end were a neighbour of the other


def nearest_neighbours(embeddings: torch.Tensor, k: int) -> torch.Tensor:
    """The k nearest other types of each type; all n - 1 if k is greater.

    Args:
        embeddings: (n, D).
        k: at least 1.
    Returns:
        int64 (n, k), nearest first.
    Raises:
        ParameterError: a value is out of its range.
    """
    if k < 1:
        raise ParameterError("neighbours", "must be at least 1", k)
    directions = unit_vectors(embeddings)
    count = len(directions)
    k = min(k, count - 1)
    found = torch.empty(count, k, dtype=torch.int64)
    for rows in chunks(torch.arange(count), count):
        similar = (directions[rows] @ directions.T).float()
        similar[torch.arange(len(rows)), rows] = -torch.inf
        values, nearest = similar.topk(k)
        # topk chooses arbitrarily among types that tie for the last place: take the lower indices
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


def unit_vectors(embeddings: torch.Tensor) -> torch.Tensor:
    """The directions of embeddings, float64 (n, D) on the CPU. A zero vector stays 0.

    Raises:
        ParameterError: there are fewer than 2 types, or values that are not finite.
    """
    embeddings = torch.as_tensor(embeddings).detach().cpu().double()
    if len(embeddings) < 2:
        raise ParameterError(
            "vocab_size", "must be at least 2 for the nearest-neighbour process", len(embeddings)
        )
    finite = embeddings.isfinite()
    if not finite.all():
        raise ParameterError("embeddings", "must be finite", embeddings[~finite][0].item())
    return torch.nn.functional.normalize(embeddings, dim=-1, eps=1e-150)


def chunks(rows: torch.Tensor, columns: int) -> tuple[torch.Tensor, ...]:
    """Row indices in groups, each with at most MAX_ENTRIES entries."""
    return rows.split(max(1, MAX_ENTRIES // columns))


def neighbour_graph(embeddings: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """G + G^T of the k-nearest-neighbour graph G, with links between its components.

    Returns:
        edges: int64 (E, 2), sorted, each once with its lower end first.
        weights: float64 (E,), 2 where each end is among the other's neighbours, else 1.
    Raises:
        ParameterError: a value is out of its range.
    """
    neighbours = nearest_neighbours(embeddings, k)
    count, k = neighbours.shape
    source = torch.arange(count).repeat_interleave(k)
    ends = torch.stack([source, neighbours.reshape(-1)], dim=-1)
    edges, weights = torch.unique(ends.sort(-1).values, dim=0, return_counts=True)
    return connect(embeddings, edges, weights.double())


def connect(
    embeddings: torch.Tensor, edges: torch.Tensor, weights: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """A connected graph: without connection, the process has no uniform limit.

    Boruvka's algorithm: while there is more than one component, each one but the largest gets a
    link from one of its types to the nearest type outside. These links form a minimum spanning tree
    over the components.

    Args and Returns:
        edges: int64 (E, 2) and weights: float64 (E,); see `neighbour_graph`.
    """
    directions = unit_vectors(embeddings)
    while True:
        count, component = components(edges, len(directions))
        if count == 1:
            return edges, weights
        links = shortest_links(directions, component)
        edges = torch.cat([edges, links])
        weights = torch.cat([weights, torch.full((len(links),), LINK_WEIGHT, dtype=weights.dtype)])
        order = torch.argsort(edges[:, 0] * len(directions) + edges[:, 1])
        edges, weights = edges[order], weights[order]


def components(edges: torch.Tensor, types: int) -> tuple[int, torch.Tensor]:
    """The number of components, and the component of each type, int64 (n,)."""
    import scipy.sparse as sp  # slow to import
    from scipy.sparse.csgraph import connected_components

    i, j = edges.T.numpy()
    count, component = connected_components(
        sp.coo_matrix((np.ones(len(i)), (i, j)), (types, types))
    )
    return count, torch.from_numpy(component).long()


def shortest_links(directions: torch.Tensor, component: torch.Tensor) -> torch.Tensor:
    """The shortest link out of each component but the largest, int64 (L, 2), each link once.

    Ties go to the link whose lower end is lower, then to the one whose higher end is lower, so that
    tied links form no cycle.

    Args:
        directions: (n, D), unit vectors; component: int64 (n,), of each type.
    """
    outside = (component != component.bincount().argmax()).nonzero()[:, 0]
    found, values = [], []
    for rows in chunks(outside, len(component)):
        similar = (directions[rows] @ directions.T).float()
        similar.masked_fill_(component[rows, None] == component, -torch.inf)
        nearest = torch.from_numpy(similar.numpy().argmax(-1))  # NumPy's argmax takes the first tie
        values.append(similar.gather(1, nearest[:, None])[:, 0])
        found.append(torch.stack([rows, nearest], dim=-1))
    found, values = torch.cat(found), torch.cat(values)
    links = found.sort(-1).values
    # sorted by component, the best link of each first
    order = np.lexsort((links[:, 1], links[:, 0], -values, component[outside]))
    _, first = np.unique(component[outside].numpy()[order], return_index=True)
    return torch.unique(links[order[first]], dim=0)


def rate_matrix(edges: torch.Tensor, weights: torch.Tensor, types: int) -> "sp.csr_matrix":
    """R: symmetric, with rows that sum to 0, scaled so that the mean rate of leaving a type is 1.

    Args:
        edges: int64 (E, 2); weights: float64 (E,); types: n.
    Returns:
        SciPy CSR matrix, float64 (n, n).
    """
    import scipy.sparse as sp  # slow to import

    i, j = edges.cpu().T.numpy()
    weights = weights.cpu().numpy()
    half = sp.coo_matrix((weights, (i, j)), (types, types)).tocsr()
    between = half + half.T
    leaving = np.asarray(between.sum(1)).ravel()
    return ((between - sp.diags(leaving)) / leaving.mean()).tocsr()


def spectrum(rates: "sp.csr_matrix") -> tuple[float, float]:
    """Two eigenvalues of -R: the least one above 0, and a close upper bound on the greatest.

    The first is the spectral gap, the rate at which the slowest mode decays.
    """
    types = rates.shape[0]
    bound = -2 * rates.diagonal().min()  # Gershgorin
    if types <= MAX_DENSE_TYPES:
        values = np.linalg.eigvalsh(-rates.toarray())
        return float(values[1]), float(values[-1])
    from scipy.sparse.linalg import LinearOperator, eigsh  # slow to import

    def shifted_rates(v):  # moves the eigenvalue of the constant vector from 0 to `bound`
        return bound * v.mean() - rates @ v

    shifted = LinearOperator(rates.shape, matvec=shifted_rates, dtype=np.float64)
    start = np.random.default_rng(0).standard_normal(types)  # the same at every load
    options = {"k": 1, "v0": start, "tol": EIGENVALUE_TOLERANCE, "return_eigenvectors": False}
    (gap,) = eigsh(shifted, which="SA", ncv=64, **options)
    (greatest,) = eigsh(-rates, which="LA", **options)
    return float(gap), float(min(greatest * (1 + 10 * EIGENVALUE_TOLERANCE), bound))
