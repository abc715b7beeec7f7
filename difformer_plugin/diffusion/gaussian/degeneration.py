"""The degeneration score (DGS) of normal embeddings by quadrature (Sec. 3.2, Definitions 1 and 2).

The degenerated model maps z_t to the embedding e with the least loss L(z_t, e). Taken literally
(norms are means over d, p(y | z_t) is a softmax of inner products), d L(z_t, e) is
||e||^2 - (d + 2) z_t . e up to a constant: the model takes the nearest neighbour of (d + 2)/2 z_t.
So both classifiers take the nearest neighbour of c z_t, with c = (d + 2)/2 or, as in the remark on
Algorithm 2, c = 1.

Let e ~ N(0, I) (sigma_e is absorbed into the noise) and z_t = sqrt(alpha-bar) e_0 +
sqrt(beta-bar) noise, with |z_t|^2 = (alpha-bar + beta-bar) rho^2, so that rho^2 ~ chi^2 (d). Let
C^2 = c^2 (alpha-bar + beta-bar) and gamma = alpha-bar / (alpha-bar + beta-bar). Given z_t, e_0 is
normal, and the squared distances to c z_t, split along z_t and across it, are

    of a wrong token:      (w - C rho)^2 + q                     w ~ N(0, 1), q ~ chi^2 (d - 1)
    of the right token:    (m + sqrt(v) w - C rho)^2 + v q       m = sqrt(gamma) rho, v = 1 - gamma

Wrong tokens are independent given z_t. With p(x) = P(a wrong token is nearer than x) and f the
density of the right token's distance,

    DGS_t = E_rho int f(x) (1 - p(x))^(V - 1) dx

The cost does not depend on V and d. Needs NumPy and SciPy only.
"""

import math
from functools import lru_cache

import numpy as np

from difformer_plugin.diffusion.parameters import ParameterError

CLASSIFIERS = ("definition1", "nearest")
MIN_SIGMA = 1e-6  # of sigma_e; the greatest is 1 / MIN_SIGMA

# Nodes of the quadratures. For d from 16 to 512 their error is below 1e-3 in DGS_t and below 1e-4
# in its mean over a schedule's steps (tests/diffusion/gaussian/test_degeneration.py).
RHO_NODES, DISTANCE_NODES, RADIUS_NODES, SMOOTH_RADIUS_NODES = 8, 80, 32, 12
# In few dimensions the integrand changes sharply with rho where c > 1.
SHARP_RHO_NODES, SHARP_BELOW = 32, 64
# The probability of a distance more than so many deviations from its mean is about 1e-11.
SPAN = 7.0
MIN_VARIANCE = 1e-12  # replaces v = 0 where there is no noise


def query_scale(classifier: str, latent_dim: int) -> float:
    """c: the classifier takes the nearest neighbour of c z_t.

    Raises:
        ParameterError: there is no such classifier.
    """
    if classifier not in CLASSIFIERS:
        raise ParameterError(
            "classifier", f"must be one of {', '.join(CLASSIFIERS)}", f"'{classifier}'"
        )
    return (latent_dim + 2) / 2 if classifier == "definition1" else 1.0


def degeneration_scores(
    alpha_bar: np.ndarray,
    beta_bar: np.ndarray,
    vocab_size: int,
    latent_dim: int,
    sigma: float = 1.0,
    classifier: str = "definition1",
) -> np.ndarray:
    """DGS_t, the accuracy of the degenerated model, for normal embeddings N(0, sigma^2 I).

    Args:
        alpha_bar, beta_bar: (T,), the coefficients of z_t ~ N(sqrt(alpha-bar) z_0, beta-bar I);
            they need not add up to 1 (Definition 2).
        vocab_size: V, at least 1.
        latent_dim: d, at least 2; the quadrature is accurate for d from 16 on.
        sigma: sigma_e, the standard deviation of an embedding's entries.
        classifier: "definition1", or "nearest" for the plain nearest neighbour.
    Returns:
        float64 array (T,).
    Raises:
        ParameterError: a value is out of its range.
    """
    alpha_bar = np.asarray(alpha_bar, dtype=np.float64)
    beta_bar = np.asarray(beta_bar, dtype=np.float64)
    if vocab_size < 1:
        raise ParameterError("vocab_size", "must be at least 1", vocab_size)
    if latent_dim < 2:
        raise ParameterError("latent_dim", "must be at least 2", latent_dim)
    if not MIN_SIGMA <= sigma <= 1 / MIN_SIGMA:
        raise ParameterError(
            "sigma", f"must lie between {MIN_SIGMA:g} and {1 / MIN_SIGMA:g}", f"{sigma:g}"
        )
    for name, values in (("alpha_bar", alpha_bar), ("beta_bar", beta_bar)):
        if invalid := [value for value in values if not 0 <= value < np.inf]:
            raise ParameterError(name, "must be finite and at least 0", invalid[0])
    if not np.all(alpha_bar + beta_bar > 0):
        raise ParameterError("alpha_bar + beta_bar", "must be above 0", 0)
    c = query_scale(classifier, latent_dim)
    beta_bar = beta_bar / sigma**2
    return np.array(
        [_accuracy(a, b, vocab_size, latent_dim, c) for a, b in zip(alpha_bar, beta_bar)]
    )


def _accuracy(alpha_bar, beta_bar, vocab_size, latent_dim, c):
    """DGS_t of one time step, for sigma_e = 1.

    Shapes: (rho, x, r) for the nodes of |z_t|, of the distance and of the distance across z_t.
    """
    from scipy.special import ndtr  # slow to import

    total = alpha_bar + beta_bar
    v = max(beta_bar / total, MIN_VARIANCE)
    s = np.sqrt(v)
    sharp = c > 1 and latent_dim < SHARP_BELOW
    rho_nodes = SHARP_RHO_NODES if sharp else RHO_NODES
    rho_squared, rho_weights = _chi_squared_nodes(latent_dim, rho_nodes)
    rho = np.sqrt(rho_squared)[:, None]
    m, centre = np.sqrt(alpha_bar / total) * rho, c * np.sqrt(total) * rho
    xi, x_weights = _legendre_nodes(DISTANCE_NODES)
    xi, x_weights = SPAN * xi, SPAN * x_weights

    root_mean_square = np.sqrt((centre - m) ** 2 + latent_dim * v)
    x = np.maximum(root_mean_square + xi * s, 0.0)
    # centre^2 - x^2, written so that no digits cancel where centre is large
    gap = (2 * centre * m - m**2 - latent_dim * v) / (centre + root_mean_square) - xi * s
    gap = (gap * (centre + x))[..., None]
    m, centre = m[..., None], centre[..., None]

    def positions(q, height):
        """Both positions along z_t at distance x, for q = x^2 - height^2 across it."""
        return (q + gap) / (centre + height), centre + height

    q, height, weights = _across(latent_dim - 1, x)
    near, far = positions(q, height)
    nearer = ((ndtr(far) - ndtr(near) if centre.min() < 9 else ndtr(-near)) * weights).sum(-1)
    all_farther = np.exp((vocab_size - 1) * np.log1p(-np.minimum(nearer, 1 - 1e-16)))

    q, height, weights = _across(latent_dim - 1, x / s)
    near, far = positions(v * q, s * height)
    bells = _bell((near - m) / s) + (_bell((far - m) / s) if (centre - m).min() < 9 * s else 0.0)
    density = x / s * (bells * weights / np.maximum(height, 1e-300)).sum(-1)
    return min(float(rho_weights @ ((density * all_farther) @ x_weights)), 1.0)


def _bell(x):
    return np.exp(-0.5 * x * x) / np.sqrt(2 * np.pi)


def _across(k, x):
    """Quadrature over q ~ chi^2 (k) below x^2: the part of a distance x that lies across z_t.

    The height sqrt(x^2 - q) has a branch point at q = x^2. Where that is far away, Gauss's rule for
    chi^2 is accurate; elsewhere the nodes approach it quadratically, which removes the singularity.

    Args:
        k: degrees of freedom; x: (..., X).
    Returns:
        q, sqrt(x^2 - q) and the weights, which broadcast to (..., X, r).
    """
    nodes, weights = _chi_squared_nodes(k, SMOOTH_RADIUS_NODES)
    x = x[..., None]
    if x.min() ** 2 > 2 * nodes[-1]:
        return nodes, np.sqrt(x**2 - nodes), weights
    middle = np.sqrt(max(k - 0.5, 0.25))
    low, high = max(middle - 5.2, 0.0), middle + 6.0
    tau, weights = _legendre_nodes(RADIUS_NODES)
    tau, weights = (tau + 1) / 2, weights / 2
    top = np.clip(x, low, high)
    r = np.maximum(top - (top - low) * tau**2, 1e-300)
    height = np.sqrt(np.maximum(x - top + (top - low) * tau**2, 0.0) * (x + r))
    log_density = (k - 1) * np.log(r) - r * r / 2 - (k / 2 - 1) * np.log(2) - math.lgamma(k / 2)
    return r * r, height, np.exp(log_density) * 2 * (top - low) * tau * weights


@lru_cache(maxsize=64)
def _legendre_nodes(count):
    return np.polynomial.legendre.leggauss(count)


@lru_cache(maxsize=64)
def _chi_squared_nodes(k, count):
    """Gauss's rule for chi^2 (k): (count,) nodes in increasing order, and weights that sum to 1.

    From eigenvalues, by Golub and Welsch; SciPy's rule overflows for large k.
    """
    i, shape = np.arange(count), k / 2 - 1
    beside = np.sqrt(i[1:] * (i[1:] + shape))
    values, vectors = np.linalg.eigh(
        np.diag(2 * i + shape + 1) + np.diag(beside, 1) + np.diag(beside, -1)
    )
    return np.maximum(2 * values, 0.0), vectors[0] ** 2
