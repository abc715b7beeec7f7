"""Nearest-neighbour transitions, exp(B R) with a sparse R (D3PM, Sec. 3.1 and App. A.2.4).

No V x V matrix is made: exp(B R) acts on vectors by a Chebyshev series. Its error is some 1e-15 of
the vector's norm, so whatever is divided by is known to more digits than float32 has, and the sums
run in float64; only the distributions that come out are of the process's dtype.
"""

import numpy as np
import torch
from scipy.interpolate import PchipInterpolator

from difformer_plugin.diffusion.categorical.draws import draw_type
from difformer_plugin.diffusion.categorical.graph import neighbour_graph, rate_matrix, spectrum
from difformer_plugin.diffusion.categorical.process import TINY, Process, at
from difformer_plugin.diffusion.categorical.schedules import (
    MUTUAL_INFORMATION,
    SCHEDULES,
    Tabulated,
    check_schedule,
    entropy,
    equal_information,
)
from difformer_plugin.diffusion.categorical.series import Acting, Exponential

EVEN = 1e-8  # as near to uniform, relative to 1 / n, all is forgotten: below float32's precision
KNOWN = 1e-10  # what is less probable has too few correct digits to be divided by
POINTS = 1025  # of a schedule's table
SAMPLE = 256  # types x_0 over which H(x_t | x_0) is averaged
PER_DECADE, LEAST_RATE = 8, 1e-4  # the values of B at which the information is measured


class Neighbours(Process):
    """Q_{t|s} = exp((B(t) - B(s)) R) on the graph of nearest neighbours; its limit is uniform.

    B(t) = -log(alpha_t) / gap is the cumulated rate: the slowest mode of R decays as alpha_t. At
    alpha_t = 0 everything is forgotten (the last step of footnote 5), and so it is as soon as no
    probability differs from 1 / n by more than EVEN / n.

    Args:
        edges: int64 (E, 2), of a connected graph, each edge once.
        weights: float64 (E,), their rates, up to a factor.
        table: float64 (P,), alpha at evenly spaced times.
        types: n, at least 2.
    """

    def __init__(self, edges, weights, table, types, dtype=torch.float32):
        super().__init__(types, types, dtype)
        rates = rate_matrix(edges, weights, types)
        self.gap, greatest = spectrum(rates)
        self.schedule = Tabulated(table)
        self.exponential = Exponential(rates, greatest, np.log(types / EVEN) / self.gap)

    def cumulated(self, t):
        """B(t), float64 (M,), from 0 to infinity."""
        return -self.schedule.alpha(t).log() / self.gap

    def between(self, s, t):
        """B(t) - B(s), float64 (M,)."""
        before, after = self.cumulated(s), self.cumulated(t)
        return torch.where(after.isinf(), after, after - before)

    def row(self, x, s, t):
        return self.spread(x, self.between(s, t))[0].to(self.dtype)

    column = row  # R is symmetric

    def act(self, v, s, t):
        return Acting.apply(v, self.exponential, self.between(s, t))

    def prior(self, u):
        return draw_type(u, self.types)

    def prior_probs(self, device):
        return torch.full((self.types,), 1 / self.types, dtype=self.dtype, device=device)

    def posterior(self, x_t, x_0, s, t):
        """As ever; where q(x_t | x_0) is below KNOWN it is q(x_s | x_t) with x_0 unknown.

        At s = 0 it is x_0 whatever x_t is.
        """
        (near,) = self.spread(x_t, self.between(s, t))
        return self._posterior(near, x_0, s).to(self.dtype)

    def _posterior(self, near, x_0, s):
        (far,) = self.spread(x_0, self.cumulated(s))
        joint = near * far
        reach = joint.sum(-1, keepdim=True)
        posterior = torch.where(reach > KNOWN, joint / reach.clamp(min=KNOWN), near)
        return torch.where((s == 0)[:, None], far, posterior)

    def reverse(self, x_t, log_p, s, t):
        """The sum over x~ of q(x_s | x_t, x~) p~(x~ | x_t), with the `posterior` above."""
        near, reach = self.spread(x_t, self.between(s, t), self.cumulated(t))
        return self._reverse(near, reach, log_p, s).to(self.dtype)

    def _reverse(self, near, reach, log_p, s):
        p = log_p.double().exp()
        known = reach > KNOWN
        weighted = torch.where(known, p / reach.clamp(min=KNOWN), 0)
        joint = near * Acting.apply(weighted, self.exponential, self.cumulated(s)).clamp(min=0)
        unknown = torch.where(known, 0, p).sum(-1, keepdim=True)
        joint = torch.where((s == 0)[:, None], p, joint + unknown * near)
        return joint / joint.sum(-1, keepdim=True)

    def kl(self, x_0, x_t, log_p, s, t):
        near, reach = self.spread(x_t, self.between(s, t), self.cumulated(t))  # once for both
        q = self._posterior(near, x_0, s)
        log_reverse = self._reverse(near, reach, log_p, s).clamp(min=TINY).log()
        divergence = torch.nn.functional.kl_div(log_reverse, q, reduction="none").sum(-1)
        return torch.where(s == 0, -at(log_p, x_0).double(), divergence).to(self.dtype)

    def spread(self, x, *amounts):
        """exp(B R) from the types x (M,) on, float64 (M, n), for each B (M,) given."""
        start = torch.zeros(len(x), self.types, dtype=torch.float64, device=x.device)
        start.scatter_(1, x[:, None], 1.0)
        return [as_distribution(found) for found in self.exponential(start, *amounts)]


def as_distribution(found):
    """Without what rounding leaves below 0, and of sum 1."""
    found = found.clamp(min=0)
    return found / found.sum(-1, keepdim=True)


def prepare(embeddings, unigram, k, schedule):
    """What a `Neighbours` process is made of, from embeddings and the data.

    Args:
        embeddings: (n, D).
        unigram: (n,), how frequent each type is, up to a factor.
        k: neighbours of each type.
        schedule: a name in `schedules.NAMES`.
    Returns:
        edges: int64 (E, 2), weights: float64 (E,), table: float64 (P,).
    Raises:
        UserError: a value out of its range.
    """
    check_schedule(schedule)
    edges, weights = neighbour_graph(embeddings, k)
    times = torch.linspace(0, 1, POINTS, dtype=torch.float64)
    if schedule != MUTUAL_INFORMATION:
        return edges, weights, SCHEDULES[schedule]().alpha(times)
    process = Neighbours(edges, weights, 1 - times, len(embeddings))
    unigram = unigram.detach().cpu().double()
    return edges, weights, mutual_information(process, unigram / unigram.sum())


def mutual_information(process, unigram):
    """The table of alpha with I(x_t; x_0) = (1 - t) H(x_0), float64 (P,).

    Args:
        process: a Neighbours process; its schedule is not used.
        unigram: float64 (n,), a distribution.
    """
    amounts, found = measured_information(process, unigram)
    curve = PchipInterpolator(np.log(amounts), found)
    low, high = np.log(amounts[0]), np.log(amounts[-1])

    def information(alpha):
        amount = -np.log(alpha.numpy()) / process.gap
        place = np.log(amount.clip(amounts[0] / 2))
        inside = np.where(place > high, 0, curve(place.clip(low, high)))
        return torch.from_numpy(np.where(place < low, float(entropy(unigram)), inside))

    return equal_information(information, unigram, 1, 0)


def measured_information(process, unigram):
    """I(x_t; x_0) = H(x_t) - H(x_t | x_0) in nats, at values of B in geometric steps.

    H(x_t) is exact, H(x_t | x_0) that of a stratified sample of x_0. They end where the
    information has gone to less than a schedule asks for.

    Returns:
        B and I, float64 arrays; I never rises.
    """
    types, shares = stratified(unigram)
    v = torch.zeros(1 + len(types), process.types, dtype=torch.float64)
    v[0] = unigram
    v[1:].scatter_(1, types[:, None], 1.0)
    amounts, found, least = [], [], float(entropy(unigram)) / POINTS
    before, here = 0.0, LEAST_RATE
    while before < process.exponential.forgetting and (len(found) < 2 or found[-1] > least):
        (v,) = process.exponential(v, torch.full((len(v),), here - before, dtype=torch.float64))
        v = as_distribution(v)
        entropies = -torch.xlogy(v, v).sum(-1)
        amounts.append(here)
        found.append(float(entropies[0] - shares @ entropies[1:]))
        before, here = here, here * 10 ** (1 / PER_DECADE)
    return np.array(amounts), np.minimum.accumulate(np.maximum(found, 0))


def stratified(unigram):
    """SAMPLE quantiles of x_0 in the order of its frequency, or all types where there are fewer.

    Returns:
        int64 (S,) types and float64 (S,) shares of them, which sum to 1.
    """
    if len(unigram) <= SAMPLE:
        return torch.arange(len(unigram)), unigram
    order = unigram.argsort(descending=True, stable=True)
    cumulative = unigram[order].cumsum(0)
    quantiles = (torch.arange(SAMPLE, dtype=torch.float64) + 0.5) / SAMPLE * cumulative[-1]
    types, counts = order[torch.searchsorted(cumulative, quantiles)].unique(return_counts=True)
    return types, counts.double() / SAMPLE
