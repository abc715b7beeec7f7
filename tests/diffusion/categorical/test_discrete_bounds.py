"""Bounds on the negative log-likelihood, against enumerated paths, entropies and one another."""

import numpy as np
import pytest
import torch
from enumeration import (
    CASES,
    NAMES,
    STEPS,
    TYPES,
    UNIGRAM,
    build,
    divergence,
    entropy,
    log,
    random_predictor,
    rows,
    schedule_named,
    substituted,
    when,
)
from scipy.special import beta

from difformer_plugin.diffusion.categorical.process import Absorbing, ForwardProcess, Interpolating
from difformer_plugin.diffusion.schedules import SCHEDULES, Floored

LOG_LINEAR = SCHEDULES["log_linear"].normalised()

SEQUENCES = np.random.default_rng(1).dirichlet(np.full(TYPES**2, 0.4)).reshape(TYPES, TYPES)


def terms(process, chain, predictor, data, indices=None):
    """L_vb without L_T by the plug-in: E KL of each step of a grid, predictor [t, x_t, x_0]."""
    indices = range(chain.steps + 1) if indices is None else indices
    x_0, x_t = rows(chain.types, chain.states)
    total = 0
    for s, t in zip(indices, indices[1:]):
        weights = (data[:, None] * chain.between(0, t)[: chain.types]).ravel()
        seen = weights > 0
        times = when(s, seen.sum(), chain.steps), when(t, seen.sum(), chain.steps)
        log_p = log(predictor[t])[x_t[seen]]
        kl = ForwardProcess.kl(process, x_0[seen], x_t[seen], log_p, *times)
        total += weights[seen] @ kl.numpy()
    return total


@pytest.fixture(params=CASES, ids=lambda case: "-".join(filter(None, case)))
def case(request):
    kind, name = request.param
    # all matrices of this chain are full: 8 steps would be 8 million paths
    return build(kind, name and schedule_named(name), steps=6 if kind == "dense" else STEPS)


def prior_term(process, data):
    return data @ process.prior_kl(torch.arange(len(data))).numpy()


def test_the_bound_is_that_of_all_paths(case):
    """L_vb = E log q(x_1 ... x_T | x_0) - log p(x_0 ... x_T), before any of it is taken apart."""
    process, chain = case
    predictor = random_predictor(chain)
    paths, weights = chain.paths(UNIGRAM)
    assert weights.sum() == pytest.approx(1)
    expected = -weights @ np.log(process.prior_probs("cpu").numpy()[paths[:, -1]])
    for t, matrix in enumerate(chain.matrices, 1):
        before, after = paths[:, t - 1], paths[:, t]
        expected += weights @ np.log(matrix[before, after])
        reverse = predictor[1] if t == 1 else chain.reverse(predictor[t], t - 1, t)
        expected -= weights @ np.log(reverse[after, before])
    found = terms(process, chain, predictor, UNIGRAM) + prior_term(process, UNIGRAM)
    assert found == pytest.approx(expected, rel=1e-10)
    assert found > entropy(UNIGRAM) + 0.1  # the predictor is of no use


@pytest.mark.parametrize("stride", [1, 2])
def test_the_true_predictor_reaches_the_entropy(case, stride):
    """One step at a time and two: the bound of one position is tight.

    Its p(x_T) is the true marginal; the process's own prior adds its divergence from that.
    """
    process, chain = case
    predictor = [chain.true_predictor(UNIGRAM, t) for t in range(chain.steps + 1)]
    grid = range(0, chain.steps + 1, stride)
    found = terms(process, chain, predictor, UNIGRAM, grid)
    conditional = chain.between(0, chain.steps)[: chain.types]
    marginal = UNIGRAM @ conditional
    assert found + UNIGRAM @ divergence(conditional, marginal) == pytest.approx(entropy(UNIGRAM))
    excess = divergence(marginal, process.prior_probs("cpu").numpy())
    assert found + prior_term(process, UNIGRAM) == pytest.approx(entropy(UNIGRAM) + excess)
    assert (excess < 1e-12) == isinstance(process, Interpolating)  # those whose alpha ends at 0


def test_what_is_left_at_the_end_is_counted_by_the_prior_term():
    """A schedule that ends at 0.3: less is lost on the way, and more is known of x_T."""
    process, chain = build("uniform", Floored(LOG_LINEAR, 0.3))
    predictor = [chain.true_predictor(UNIGRAM, t) for t in range(STEPS + 1)]
    found = terms(process, chain, predictor, UNIGRAM)
    excess = divergence(UNIGRAM @ chain.between(0, STEPS), np.full(TYPES, 1 / TYPES))
    assert found < entropy(UNIGRAM) - 0.05
    assert found + prior_term(process, UNIGRAM) == pytest.approx(entropy(UNIGRAM) + excess)


# sequences of two tokens; a predictor is [x_t^1, x_t^2, i, x_0^i]


def sequence_predictor(chain, seed=0):
    shape = chain.states, chain.states, 2
    return np.random.default_rng(seed).dirichlet(np.ones(chain.types), shape)


def subs(predictor):
    """SUBS: each position copies its own token, unless it is a mask."""
    first = substituted(predictor[:, :, 0].swapaxes(0, 1)).swapaxes(0, 1)
    return np.stack([first, substituted(predictor[:, :, 1])], axis=2)


def true_sequence_predictor(data):
    """p(x_0^i | x_t) of masked pairs, at any time: it does not depend on it."""
    types = len(data)
    predictor = np.full((types + 1, types + 1, 2, types), 1 / types)
    predictor[:types, types, 1] = data / data.sum(1, keepdims=True)
    predictor[types, :types, 0] = (data / data.sum(0)).T
    predictor[types, types] = data.sum(1), data.sum(0)
    return subs(predictor)


def pair_term(chain, predictor, data, s, t):
    """E KL(q(x_s | x_t, x_0) || p(x_s | x_t)) of sequences: matrices on all pairs of states."""

    def pairs(matrix):
        return np.kron(matrix, matrix)

    first, step = chain.between(0, s)[: chain.types], chain.between(s, t)
    joint = pairs(first)[:, None] * pairs(step).T  # [x_0, x_t, x_s]
    seen = joint.sum(-1)
    possible = np.argwhere(seen > 0)
    reverse = {}
    for x, y in rows(chain.states, chain.states).T.tolist():
        one, two = (chain.reverse(np.tile(p, (chain.states, 1)), s, t) for p in predictor[x, y])
        reverse[x * chain.states + y] = np.kron(one[x], two[y])
    q = np.stack([joint[x_0, x_t] / seen[x_0, x_t] for x_0, x_t in possible])
    p = np.stack([reverse[x_t] for _, x_t in possible])
    weights = np.array([data.ravel()[x_0] * seen[x_0, x_t] for x_0, x_t in possible])
    return weights @ divergence(q, p)


def over_positions(chain, data, t, term):
    """E of a term summed over both positions; term(x_0, x_t, index), index into a predictor."""
    x_0, y_0, x_t, y_t = rows(chain.types, chain.types, chain.states, chain.states)
    forward = chain.between(0, t)[: chain.types]
    weights = data[x_0, y_0] * forward[x_0, x_t] * forward[y_0, y_t]
    seen = weights > 0
    x_0, y_0, x_t, y_t = (x[seen] for x in (x_0, y_0, x_t, y_t))
    both = term(x_0, x_t, (x_t, y_t, 0)) + term(y_0, y_t, (x_t, y_t, 1))
    return (weights[seen] @ both.numpy()).item()


def by_process(kl, process, chain, predictor, s, t):
    def term(x_0, x_t, index):
        times = when(s, len(x_t), chain.steps), when(t, len(x_t), chain.steps)
        return kl(process, x_0, x_t, log(predictor[index]), *times)

    return term


def cross_entropy(process, predictor):
    """-log p(x_0^i | x_t) of a mask."""

    def term(x_0, x_t, index):
        found = log(predictor[index])[torch.arange(len(x_0)), x_0]
        return -torch.where(x_t == process.mask, found, 0)

    return term


@pytest.mark.parametrize("kind", ["uniform", "absorbing"])
def test_terms_of_sequences_are_sums_over_their_positions(kind):
    """Three ways to say the same of masks under SUBS: D3PM's, its short form and MDLM's."""
    process, chain = build(kind, schedule_named("cosine"), steps=4)
    for s, t in [(0, 1), (1, 2), (3, 4), (1, 4)]:
        predictor = sequence_predictor(chain, seed=t)
        predictor = subs(predictor) if kind == "absorbing" else predictor
        expected = pair_term(chain, predictor, SEQUENCES, s, t)
        for kl in {ForwardProcess.kl, type(process).kl}:
            term = by_process(kl, process, chain, predictor, s, t)
            assert over_positions(chain, SEQUENCES, t, term) == pytest.approx(expected, rel=1e-10)
        if kind == "absorbing":
            weight = process.schedule.unmasking_probability(*(when(i, 1, 4) for i in (s, t))).item()
            found = over_positions(chain, SEQUENCES, t, cross_entropy(process, predictor))
            assert weight * found == pytest.approx(expected, rel=1e-10)


def discrete_bound(schedule, steps, predictor, data):
    """MDLM's bound in T steps, by the plug-in."""
    process, chain = build("absorbing", schedule, len(data), steps)
    total = 0
    for t in range(1, steps + 1):
        term = by_process(Absorbing.kl, process, chain, predictor, t - 1, t)
        total += over_positions(chain, data, t, term)
    return total


def continuous_bound(schedule, predictor, data):
    """The integral of hazard times cross-entropy, by Gauss' rule between tabulated times."""
    process, _ = build("absorbing", schedule, len(data))
    nodes, weights = np.polynomial.legendre.leggauss(6)
    t = torch.tensor(((np.arange(256)[:, None] + (nodes + 1) / 2) / 256).ravel())
    rates = (schedule.unmasking_rate(t) * torch.tensor(np.tile(weights / 512, 256))).numpy()
    alpha = schedule.alpha_bar(t).numpy()
    one, two = by_number_of_masks(process, predictor, data)
    return rates @ (one * alpha * (1 - alpha) + two * (1 - alpha) ** 2)


def by_number_of_masks(process, predictor, data):
    """E of the cross-entropies of all pairs with one mask, and of the pair with two."""
    x_0, y_0 = rows(*data.shape)
    masks, weights = torch.full_like(x_0, process.mask), data[x_0, y_0]
    term = cross_entropy(process, predictor)
    one = term(x_0, masks, (masks, y_0, 0)) + term(y_0, masks, (x_0, masks, 1))
    two = term(x_0, masks, (masks, masks, 0)) + term(y_0, masks, (masks, masks, 1))
    return weights @ one.numpy(), weights @ two.numpy()


@pytest.mark.parametrize("name", NAMES)
def test_the_continuous_bound_does_not_depend_on_the_schedule(name):
    """Over alpha it is an integral of A alpha (1 - alpha) + B (1 - alpha)^2, over 1 - alpha."""
    process, chain = build("absorbing", LOG_LINEAR)
    predictor = subs(sequence_predictor(chain))
    one, two = by_number_of_masks(process, predictor, SEQUENCES)
    expected = one * beta(2, 1) + two * beta(1, 2)
    found = continuous_bound(schedule_named(name), predictor, SEQUENCES)
    assert found == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_the_discrete_bound_tends_to_the_continuous_one(name):
    """From above, as what appears at once is told independently; the gap is of order 1 / T.

    The uniform process's information schedule ends as a square root: there it is log T / T.
    """
    schedule, predictor = schedule_named(name), true_sequence_predictor(SEQUENCES)
    limit = continuous_bound(schedule, predictor, SEQUENCES)
    gaps = [discrete_bound(schedule, steps, predictor, SEQUENCES) - limit for steps in (64, 128)]
    assert 0 < gaps[1] < 0.005 * limit
    assert gaps[0] / gaps[1] == pytest.approx(2, rel=0.1 if name == "mutual_information" else 1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_the_two_bounds_meet_for_any_predictor(name):
    schedule = schedule_named(name)
    predictor = subs(sequence_predictor(build("absorbing", schedule)[1]))
    limit = continuous_bound(schedule, predictor, SEQUENCES)
    assert limit > entropy(SEQUENCES) + 0.5  # a predictor of no use
    gaps = [discrete_bound(schedule, steps, predictor, SEQUENCES) - limit for steps in (64, 128)]
    assert abs(gaps[1]) < 0.005 * limit
    assert gaps[0] / gaps[1] == pytest.approx(2, rel=0.1 if name == "mutual_information" else 0.01)


def test_the_bound_of_sequences_is_their_entropy_and_what_is_said_at_once():
    """In T steps both tokens appear in the same one with probability 1 / T, told independently.

    So the bound of the true predictor is H(x_0) + I(x^1; x^2) / T, and H(x_0) in the limit.
    """
    predictor = true_sequence_predictor(SEQUENCES)
    independent = np.outer(SEQUENCES.sum(1), SEQUENCES.sum(0))
    shared = divergence(SEQUENCES.ravel(), independent.ravel())
    for steps in (1, 2, 5, STEPS):
        found = discrete_bound(LOG_LINEAR, steps, predictor, SEQUENCES)
        assert found == pytest.approx(entropy(SEQUENCES) + shared / steps)
    found = continuous_bound(LOG_LINEAR, predictor, SEQUENCES)
    assert found == pytest.approx(entropy(SEQUENCES))
