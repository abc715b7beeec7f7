"""Transitions along a graph against dense matrix exponentials and enumeration."""

import copy
import math

import numpy as np
import pytest
import torch
from enumeration import (
    STEPS,
    TYPES,
    UNIGRAM,
    Chain,
    log,
    random_predictor,
    rows,
    when,
)
from neighbour_cases import FALLING, close, embeddings, graph_of, line_of
from scipy import stats
from scipy.linalg import expm

from difformer_plugin.diffusion.categorical.graph import rate_matrix
from difformer_plugin.diffusion.categorical.neighbours import (
    MIN_RELIABLE_PROB,
    NearestNeighbour,
    neighbour_tables,
)
from difformer_plugin.diffusion.parameters import ParameterError
from difformer_plugin.diffusion.schedules import CATEGORICAL, SCHEDULES, schedule_names

PAIRS = [(s, t) for t in range(1, STEPS + 1) for s in range(t)]


def positive_exponential(rates):
    """exp(R) for small rates as a series without subtractions: each entry is right to 1e-14."""
    most = -rates.diagonal().min()
    steps = rates + most * np.eye(len(rates))
    term = total = np.eye(len(rates))
    for k in range(1, 80):
        term = term @ steps / k
        total = total + term
    return total * math.exp(-most)


@pytest.fixture(params=schedule_names(CATEGORICAL))
def case(request):
    """Eight steps of five types, and the chain of their dense matrices."""
    edges, weights, table = neighbour_tables(
        embeddings(TYPES), torch.tensor(UNIGRAM), 1, request.param
    )
    process = NearestNeighbour(edges, weights, table, TYPES, torch.float64)
    rates = rate_matrix(edges, weights, TYPES).toarray()
    amounts = process.cumulative_rate(torch.arange(STEPS + 1, dtype=torch.float64) / STEPS).numpy()
    assert amounts[0] == 0 and amounts[-1] == np.inf
    matrices = [expm((b - a) * rates) for a, b in zip(amounts[:-2], amounts[1:-1])]
    return process, Chain([*matrices, np.full((TYPES, TYPES), 1 / TYPES)], TYPES)


def test_no_rows():
    process, _ = graph_of(5)
    nothing = torch.zeros(0, dtype=torch.float64)
    assert process.row(nothing.long(), nothing, nothing).shape == (0, 5)


def test_rows_and_columns_are_distributions_of_the_dtype():
    process, _ = graph_of(40, dtype=torch.float32)
    for t in (0, 0.01, 0.3, 0.9, 1):
        times = torch.zeros(40, dtype=torch.float64), torch.full((40,), t, dtype=torch.float64)
        matrix = process.row(torch.arange(40), *times)
        assert matrix.dtype == torch.float32 and matrix.min() >= 0
        torch.testing.assert_close(matrix.sum(0), torch.ones(40))
        torch.testing.assert_close(matrix.sum(1), torch.ones(40))
        torch.testing.assert_close(process.column(torch.arange(40), *times), matrix.T)
    assert (matrix == process.prior_probs("cpu")).all()
    assert process.prior_kl(torch.arange(40)).abs().max() < 1e-6


def over_pairs(function):
    """A function of s and t for all pairs of steps, as one array of rows."""
    return np.concatenate([function(s, t) for s, t in PAIRS])


def all_times(count):
    """The times s and t of so many rows for each pair."""
    pairs = torch.tensor(PAIRS, dtype=torch.float64) / STEPS
    return pairs.repeat_interleave(count, dim=0).T


def test_rows_columns_and_products(case):
    process, chain = case
    x, times = torch.arange(TYPES).repeat(len(PAIRS)), all_times(TYPES)
    v = torch.rand(TYPES, TYPES, dtype=torch.float64)
    close(process.row(x, *times), over_pairs(chain.between))
    close(process.column(x, *times), over_pairs(lambda s, t: chain.between(s, t).T))
    products = over_pairs(lambda s, t: v.numpy() @ chain.between(s, t))
    close(process.act(v.repeat(len(PAIRS), 1), *times), products)


def test_posteriors_reverse_steps_and_terms_of_the_bound(case):
    process, chain = case
    predictor = random_predictor(chain)
    x_t, x_0 = rows(TYPES, TYPES)
    times, repeated = all_times(len(x_t)), (x_t.repeat(len(PAIRS)), x_0.repeat(len(PAIRS)))
    log_p = log(over_pairs(lambda s, t: predictor[t][x_t]))
    posterior = process.posterior(*repeated, *times)
    close(posterior, over_pairs(lambda s, t: chain.posterior(s, t)[x_t, x_0]))
    reverse = process.reverse(repeated[0], log_p, *times)
    close(reverse, over_pairs(lambda s, t: chain.reverse(predictor[t], s, t)[x_t]))
    terms = process.kl(*repeated[::-1], log_p, *times)
    close(terms, over_pairs(lambda s, t: chain.kl(predictor[t], s, t)[x_t, x_0]))
    close(process.prior_kl(torch.arange(TYPES)), np.zeros(TYPES))


@pytest.mark.parametrize("case", ["mutual_information"], indirect=True)
def test_the_bound_is_that_of_all_paths(case):
    """E over q of log q(x_1..T | x_0) - log p(x_0..T), path by path."""
    process, chain = case
    predictor = random_predictor(chain)
    x_t, x_0 = rows(TYPES, TYPES)
    bound = 0
    for t in range(1, STEPS + 1):
        times = when(t - 1, len(x_t)), when(t, len(x_t))
        terms = process.kl(x_0, x_t, log(predictor[t])[x_t], *times).numpy()
        bound += (UNIGRAM[x_0] * chain.between(0, t)[x_0, x_t] * terms).sum()
    paths, weights = chain.paths(UNIGRAM)
    ratio = np.full(len(paths), math.log(TYPES))
    for t in range(1, STEPS + 1):
        reverse = chain.reverse(predictor[t], t - 1, t)
        before, after = paths[:, t - 1], paths[:, t]
        ratio += np.log(chain.matrices[t - 1] / reverse.T)[before, after]
    assert bound == pytest.approx(weights @ ratio, rel=1e-9)


def test_gradients():
    process, rates = graph_of(TYPES, table=FALLING)
    s = torch.tensor([0.0, 0.2, 0.5, 0.7], dtype=torch.float64)
    t = torch.tensor([0.3, 0.9, 1.0, 0.8], dtype=torch.float64)
    v = torch.randn(4, TYPES, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v: process.act(v, s, t), v)

    def terms(logits):
        return process.kl(torch.arange(4), torch.tensor([0, 2, 1, 4]), logits.log_softmax(-1), s, t)

    assert torch.autograd.gradcheck(terms, v)


@pytest.mark.parametrize("s,t", [(0, 3), (3, 4), (2, 7), (5, 8)])
def test_draws_follow_the_law(s, t):
    """Of x_t given x_0, and of x_s given both."""
    edges, weights, table = neighbour_tables(
        embeddings(TYPES), torch.tensor(UNIGRAM), 1, "mutual_information"
    )
    process = NearestNeighbour(edges, weights, table, TYPES)
    rates = rate_matrix(edges, weights, TYPES).toarray()
    a, b = process.cumulative_rate(torch.tensor([s, t], dtype=torch.float64) / STEPS).tolist()
    start, whole = expm(a * rates), expm(b * rates) if t < STEPS else np.full((5, 5), 0.2)
    step = expm((b - a) * rates) if t < STEPS else whole
    count = 20_000
    u = torch.rand(count, 2, generator=torch.Generator().manual_seed(t))
    x_0 = torch.full((count,), 1)
    noised = process.corrupt(x_0, when(t, count), u)
    assert goodness(noised, whole[1]) > 1e-3
    x_t = torch.full((count,), 3)
    before = process.step(x_t, x_0, when(s, count), when(t, count), u)
    law = start[1] * step[:, 3]
    assert goodness(before, law / law.sum()) > 1e-3


def goodness(drawn, law):
    """The p-value of a chi-square test; what can hardly be is in one cell with the rest."""
    counts = np.bincount(drawn, minlength=len(law))
    often = law * len(drawn) > 5
    assert counts[~often].sum() <= 30
    if often.sum() == 1:
        return 1.0
    expected = law[often] / law[often].sum() * counts[often].sum()
    return stats.chisquare(counts[often], expected).pvalue


def test_far_types_are_known_well_or_not_at_all():
    """On a line, for little noise: from half of all to 1e-70 of all."""
    count, amounts = 30, np.array([0.05, 0.2])
    process, rates = line_of(count)
    s, t = (
        torch.full((count,), 1 - math.exp(-process.gap * b), dtype=torch.float64) for b in amounts
    )
    amounts = [float(process.cumulative_rate(times)[0]) for times in (s, t)]  # a table is not exact
    q_s, q_t = (positive_exponential(b * rates) for b in amounts)
    q_st = positive_exponential((amounts[1] - amounts[0]) * rates)
    x_0 = torch.arange(count)
    x_t = torch.full((count,), 10)
    exact = q_s * q_st[:, 10] / q_t[:, 10:11]
    known = q_t[:, 10] > 2 * MIN_RELIABLE_PROB
    assert 5 < known.sum() < 20 and q_t[:, 10].min() < 1e-30
    found = process.posterior(x_t, x_0, s, t)
    close(found[known], exact[known], rtol=0, atol=1e-5)
    close(found[~known], np.tile(q_st[10], ((~known).sum(), 1)))
    for sparse in (0, 1):  # p~ evenly on all types, or all on a far one
        p = np.full((1, count), 1 / count) if not sparse else np.eye(count)[-1:]
        reverse = process.reverse(x_t[:1], log(p), s[:1], t[:1])
        close(reverse, p @ found.numpy(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_prediction_is_too_far(dtype):
    """However little noise there is: distributions, finite terms and gradients; x_0 at s = 0."""
    count = 30
    process, _ = line_of(count, dtype=dtype)
    x_t, x_0 = rows(count, count)
    log_p = torch.randn(len(x_t), count, generator=torch.Generator().manual_seed(0)).mul(20)
    for s, t in [(0, 1e-6), (1e-9, 1e-6), (1e-6, 1e-3), (0.3, 0.7), (0.7, 1)]:
        times = [torch.full((len(x_t),), time, dtype=torch.float64) for time in (s, t)]
        logits = log_p.clone().requires_grad_()
        posterior = process.posterior(x_t, x_0, *times)
        reverse = process.reverse(x_t, logits.log_softmax(-1), *times)
        terms = process.kl(x_0, x_t, logits.log_softmax(-1), *times)
        (gradient,) = torch.autograd.grad(terms.sum(), logits)
        for law in (posterior, reverse):
            assert law.dtype == dtype and law.min() >= 0
            torch.testing.assert_close(law.sum(-1), torch.ones(len(law), dtype=dtype))
        assert terms.isfinite().all() and gradient.isfinite().all()
        assert terms.min() > -1e-6
        if s == 0:
            drawn = process.step(x_t, x_0, *times, torch.rand(len(x_t), 2))
            assert (drawn == x_0).all()


def test_named_schedules_are_alpha_of_the_slowest_mode(case):
    process, _ = case
    t = torch.linspace(0, 0.97, 50, dtype=torch.float64)
    slowest = torch.exp(-process.gap * process.cumulative_rate(t))
    torch.testing.assert_close(slowest, process.schedule.alpha_bar(t))
    for name in ("linear", "cosine", "log_linear"):
        table = neighbour_tables(embeddings(TYPES), torch.ones(TYPES), 1, name)[2]
        rebuilt = NearestNeighbour(
            *neighbour_tables(embeddings(TYPES), torch.ones(TYPES), 1, name), TYPES
        )
        assert table[0] == 1 and table[-1] == 0
        close(
            rebuilt.schedule.alpha_bar(t),
            SCHEDULES[name].normalised().alpha_bar(t),
            rtol=0,
            atol=1e-4,
        )


def test_a_saved_process_is_the_same(tmp_path):
    made = neighbour_tables(embeddings(40), torch.ones(40), 3, "mutual_information")
    torch.save(made, tmp_path / "process.pt")
    process = NearestNeighbour(*made, 40)
    x, times = torch.arange(40), (when(2, 40), when(5, 40))
    expected = process.row(x, *times)
    again = NearestNeighbour(*torch.load(tmp_path / "process.pt", weights_only=True), 40)
    for other in (again, copy.deepcopy(process)):
        assert (other.row(x, *times) == expected).all()


def test_unknown_schedules_are_refused():
    with pytest.raises(ParameterError, match="noise_schedule must be one of .*, not 'sqrt'"):
        neighbour_tables(embeddings(5), torch.ones(5), 2, "sqrt")
