"""Nearest-neighbour transitions, exp(B R) with a sparse R (D3PM, Sec. 3.1 and App. A.2.4).

No n x n matrix is made: a Chebyshev series applies exp(B R) to vectors, with an error of about
1e-15 of the vector's norm. Sums and divisions are in float64, so that they keep more digits than
float32 has; only the resulting distributions have the process's dtype.
"""

import numpy as np
import torch

from difformer_plugin.diffusion.categorical.draws import draw_type
from difformer_plugin.diffusion.categorical.graph import neighbour_graph, rate_matrix, spectrum
from difformer_plugin.diffusion.categorical.information import entropy, equal_information
from difformer_plugin.diffusion.categorical.process import TINY, ForwardProcess, at
from difformer_plugin.diffusion.categorical.series import ApplyExponential, Exponential
from difformer_plugin.diffusion.schedules import CATEGORICAL, Tabulated, get_schedule

UNIFORM_TOLERANCE = (
    1e-8  # n |p - 1 / n| below which p counts as uniform: less than float32 resolves
)
MIN_RELIABLE_PROB = 1e-10  # smaller probabilities have too few correct digits to divide by
TABLE_POINTS = 1025  # of the table of alpha-bar
SAMPLED_TYPES = 256  # types x_0 over which H(x_t | x_0) is averaged
# The information is measured at values of B in geometric steps.
MIN_B, POINTS_PER_DECADE = 1e-4, 8


class NearestNeighbour(ForwardProcess):
    """Q_{t|s} = exp((B(t) - B(s)) R) on a graph of nearest neighbours. Its limit is uniform.

    B(t) = -log(alpha-bar_t) / gap is the cumulative rate: the slowest mode of R decays as
    alpha-bar_t. x_t is uniform where alpha-bar_t = 0 (the last step of footnote 5), and from the B
    on at which no probability differs from 1 / n by more than UNIFORM_TOLERANCE / n.

    Args:
        edges: int64 (E, 2), of a connected graph, each edge once.
        weights: float64 (E,), their rates, up to a factor.
        table: float64 (P,), alpha-bar at evenly spaced times.
        types: n, at least 2.
        dtype: of the distributions.
    """

    def __init__(
        self,
        edges: torch.Tensor,
        weights: torch.Tensor,
        table: torch.Tensor,
        types: int,
        dtype: torch.dtype = torch.float32,
    ):
        super().__init__(types, types, dtype)
        rates = rate_matrix(edges, weights, types)
        self.gap, greatest = spectrum(rates)
        self.schedule = Tabulated(table)
        uniform_from = np.log(types / UNIFORM_TOLERANCE) / self.gap
        self.exponential = Exponential(rates, greatest, uniform_from)

    def cumulative_rate(self, t: torch.Tensor) -> torch.Tensor:
        """B(t), float64 (M,), from 0 to infinity."""
        return -self.schedule.alpha_bar(t).log() / self.gap

    def rate_between(self, s: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """B(t) - B(s), float64 (M,)."""
        before, after = self.cumulative_rate(s), self.cumulative_rate(t)
        return torch.where(after.isinf(), after, after - before)

    def row(self, x: torch.Tensor, s: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return self.spread(x, self.rate_between(s, t))[0].to(self.dtype)

    column = row  # R is symmetric

    def act(self, v: torch.Tensor, s: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return ApplyExponential.apply(v, self.exponential, self.rate_between(s, t))

    def prior(self, u: torch.Tensor) -> torch.Tensor:
        return draw_type(u, self.types)

    def prior_probs(self, device: torch.device) -> torch.Tensor:
        return torch.full((self.types,), 1 / self.types, dtype=self.dtype, device=device)

    def posterior(
        self, x_t: torch.Tensor, x_0: torch.Tensor, s: torch.Tensor, t: torch.Tensor
    ) -> torch.Tensor:
        """See `ForwardProcess`; q(x_s | x_t) where q(x_t | x_0) is below MIN_RELIABLE_PROB.

        At s = 0 it is x_0 whatever x_t is.
        """
        (from_t,) = self.spread(x_t, self.rate_between(s, t))
        return self._posterior(from_t, x_0, s).to(self.dtype)

    def _posterior(self, from_t, x_0, s):
        """q(x_s | x_t, x_0) in float64, from `from_t` = q(x_s | x_t) for uniform x_s, (M, n)."""
        (from_0,) = self.spread(x_0, self.cumulative_rate(s))
        joint = from_t * from_0
        evidence = joint.sum(-1, keepdim=True)  # q(x_t | x_0)
        reliable = evidence > MIN_RELIABLE_PROB
        posterior = torch.where(reliable, joint / evidence.clamp(min=MIN_RELIABLE_PROB), from_t)
        return torch.where((s == 0)[:, None], from_0, posterior)

    def reverse(
        self, x_t: torch.Tensor, log_p: torch.Tensor, s: torch.Tensor, t: torch.Tensor
    ) -> torch.Tensor:
        """See `ForwardProcess`; with the `posterior` above."""
        from_t, evidence = self.spread(x_t, self.rate_between(s, t), self.cumulative_rate(t))
        return self._reverse(from_t, evidence, log_p, s).to(self.dtype)

    def _reverse(self, from_t, evidence, log_p, s):
        """p(x_s | x_t) in float64; `evidence` is q(x_t | x_0 = x~) for each type x~, (M, n)."""
        p = log_p.double().exp()
        reliable = evidence > MIN_RELIABLE_PROB
        weighted = torch.where(reliable, p / evidence.clamp(min=MIN_RELIABLE_PROB), 0)
        spread = ApplyExponential.apply(weighted, self.exponential, self.cumulative_rate(s))
        joint = from_t * spread.clamp(min=0)
        unreliable = torch.where(reliable, 0, p).sum(-1, keepdim=True)
        joint = torch.where((s == 0)[:, None], p, joint + unreliable * from_t)
        return joint / joint.sum(-1, keepdim=True)

    def kl(
        self,
        x_0: torch.Tensor,
        x_t: torch.Tensor,
        log_p: torch.Tensor,
        s: torch.Tensor,
        t: torch.Tensor,
    ) -> torch.Tensor:
        """See `ForwardProcess`; posterior and reverse share one application of exp(B R)."""
        from_t, evidence = self.spread(x_t, self.rate_between(s, t), self.cumulative_rate(t))
        q = self._posterior(from_t, x_0, s)
        log_reverse = self._reverse(from_t, evidence, log_p, s).clamp(min=TINY).log()
        divergence = torch.nn.functional.kl_div(log_reverse, q, reduction="none").sum(-1)
        return torch.where(s == 0, -at(log_p, x_0).double(), divergence).to(self.dtype)

    def spread(self, x: torch.Tensor, *amounts: torch.Tensor) -> list[torch.Tensor]:
        """exp(B R) from the types x (M,), float64 (M, n), for each B (M,) in `amounts`."""
        start = torch.zeros(len(x), self.types, dtype=torch.float64, device=x.device)
        start.scatter_(1, x[:, None], 1.0)
        return [as_distribution(result) for result in self.exponential(start, *amounts)]


def as_distribution(values: torch.Tensor) -> torch.Tensor:
    """Rows without the negative values that rounding leaves, normalised to sum 1."""
    values = values.clamp(min=0)
    return values / values.sum(-1, keepdim=True)


def neighbour_tables(
    embeddings: torch.Tensor, unigram: torch.Tensor, k: int, schedule: str
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The edges, weights and table of a `NearestNeighbour` process, from embeddings and data.

    Args:
        embeddings: (n, D).
        unigram: (n,), the frequency of each type, up to a factor.
        k: neighbours of each type.
        schedule: name of a schedule for CATEGORICAL diffusion.
    Returns:
        edges: int64 (E, 2), weights: float64 (E,), table: float64 (P,).
    Raises:
        ParameterError: a value is out of its range.
    """
    formula = get_schedule(schedule, CATEGORICAL)
    edges, weights = neighbour_graph(embeddings, k)
    times = torch.linspace(0, 1, TABLE_POINTS, dtype=torch.float64)
    if not formula.of_information:
        return edges, weights, formula.normalised().alpha_bar(times)
    process = NearestNeighbour(edges, weights, 1 - times, len(embeddings))
    unigram = unigram.detach().cpu().double()
    return edges, weights, mutual_information_table(process, unigram / unigram.sum())


def mutual_information_table(process: NearestNeighbour, unigram: torch.Tensor) -> torch.Tensor:
    """alpha-bar at evenly spaced times with I(x_t; x_0) = (1 - t) H(x_0), float64 (P,).

    Args:
        process: its schedule is not used.
        unigram: float64 (n,), the distribution of x_0.
    """
    from scipy.interpolate import PchipInterpolator  # slow to import

    amounts, measured = measured_information(process, unigram)
    curve = PchipInterpolator(np.log(amounts), measured)
    low, high = np.log(amounts[0]), np.log(amounts[-1])

    def information(alpha_bar):
        amount = -np.log(alpha_bar.numpy()) / process.gap
        log_amount = np.log(amount.clip(amounts[0] / 2))
        inside = np.where(log_amount > high, 0, curve(log_amount.clip(low, high)))
        return torch.from_numpy(np.where(log_amount < low, float(entropy(unigram)), inside))

    return equal_information(information, unigram)


def measured_information(
    process: NearestNeighbour, unigram: torch.Tensor
) -> tuple[np.ndarray, np.ndarray]:
    """I(x_t; x_0) = H(x_t) - H(x_t | x_0) in nats, at values of B in geometric steps.

    H(x_t) is exact; H(x_t | x_0) is the mean over a stratified sample of x_0. The last B is the
    first that leaves less information than a schedule asks for.

    Returns:
        B and I, float64 arrays; I never rises.
    """
    types, shares = stratified_types(unigram)
    v = torch.zeros(1 + len(types), process.types, dtype=torch.float64)
    v[0] = unigram
    v[1:].scatter_(1, types[:, None], 1.0)
    amounts, measured, least = [], [], float(entropy(unigram)) / TABLE_POINTS
    before, here = 0.0, MIN_B
    while before < process.exponential.uniform_from and (len(measured) < 2 or measured[-1] > least):
        (v,) = process.exponential(v, torch.full((len(v),), here - before, dtype=torch.float64))
        v = as_distribution(v)
        entropies = -torch.xlogy(v, v).sum(-1)
        amounts.append(here)
        measured.append(float(entropies[0] - shares @ entropies[1:]))
        before, here = here, here * 10 ** (1 / POINTS_PER_DECADE)
    return np.array(amounts), np.minimum.accumulate(np.maximum(measured, 0))


def stratified_types(unigram: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """SAMPLED_TYPES quantiles of x_0, types sorted by frequency; all types if there are fewer.

    Returns:
        int64 (S,) types and float64 (S,), their shares of the sample, which sum to 1.
    """
    if len(unigram) <= SAMPLED_TYPES:
        return torch.arange(len(unigram)), unigram
    order = unigram.argsort(descending=True, stable=True)
    cumulative = unigram[order].cumsum(0)
    quantiles = (torch.arange(SAMPLED_TYPES, dtype=torch.float64) + 0.5) / SAMPLED_TYPES
    index = torch.searchsorted(cumulative, quantiles * cumulative[-1])
    types, counts = order[index].unique(return_counts=True)
    return types, counts.double() / SAMPLED_TYPES
