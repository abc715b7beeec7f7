"""Processes on categories against products of explicit matrices: 5 types, 8 steps."""

import numpy as np
import pytest
import torch
from enumeration import (
    CASES,
    STEPS,
    TYPES,
    UNIGRAM,
    build,
    divergence,
    log,
    random_predictor,
    rows,
    schedule_named,
    substituted,
    when,
)

from difformer_plugin.diffusion.categorical.process import Absorbing, ForwardProcess, Uniform
from difformer_plugin.diffusion.schedules import SCHEDULES, Floored

LOG_LINEAR = SCHEDULES["log_linear"].normalised()

PAIRS = [(s, t) for t in range(1, STEPS + 1) for s in range(t)]


@pytest.fixture(params=CASES, ids=lambda case: "-".join(filter(None, case)))
def case(request):
    kind, name = request.param
    return build(kind, name and schedule_named(name))


def close(actual, expected, **tolerance):
    expected = torch.as_tensor(np.ascontiguousarray(expected))
    torch.testing.assert_close(actual, expected, **(tolerance or {"rtol": 1e-11, "atol": 1e-13}))


def test_rows_columns_and_products(case):
    process, chain = case
    x = torch.arange(chain.states)
    v = torch.rand(chain.states, chain.states, dtype=torch.float64)
    for s, t in PAIRS:
        times = when(s, chain.states), when(t, chain.states)
        matrix = chain.between(s, t)
        close(process.row(x, *times), matrix)
        close(process.column(x, *times), matrix.T)
        close(process.act(v, *times), v.numpy() @ matrix)


def test_rows_of_one_batch_may_be_at_different_times(case):
    process, chain = case
    x = torch.arange(len(PAIRS)) % chain.states
    s, t = torch.tensor(PAIRS, dtype=torch.float64).T / STEPS
    expected = [chain.between(*pair) for pair in PAIRS]
    close(process.row(x, s, t), np.stack([q[i] for q, i in zip(expected, x)]))
    close(process.column(x, s, t), np.stack([q[:, i] for q, i in zip(expected, x)]))


def test_posteriors(case):
    """Of every s < t, not only of the step before (Eq. 3)."""
    process, chain = case
    x_t, x_0 = rows(chain.states, chain.types)
    for s, t in PAIRS:
        expected = chain.posterior(s, t)[x_t, x_0]
        possible = ~np.isnan(expected).any(-1)
        assert possible.sum() >= chain.types
        posterior = process.posterior(x_t, x_0, when(s, len(x_t)), when(t, len(x_t)))
        close(posterior[possible], expected[possible])


def test_reverse_steps_are_sums_of_posteriors(case):
    """One step as well as many at once."""
    process, chain = case
    predictor = random_predictor(chain)
    x_t = torch.arange(chain.states)
    for s, t in PAIRS:
        times = when(s, chain.states), when(t, chain.states)
        reverse = process.reverse(x_t, log(predictor[t]), *times)
        expected = chain.reverse(predictor[t], s, t)
        possible = ~np.isnan(expected).any(-1)
        assert possible.all() or t == STEPS  # when all are masks
        close(reverse[possible], expected[possible])


def test_the_true_predictor_gives_the_true_reverse_step(case):
    """And Eq. 4 as printed, which weighs with q(x_s, x_t | x~), does not."""
    process, chain = case
    x_t = torch.arange(chain.states)
    gaps = []
    for s, t in PAIRS:
        predictor = chain.true_predictor(UNIGRAM, t)
        joint = (UNIGRAM @ chain.between(0, s)[: chain.types])[:, None] * chain.between(s, t)
        seen = joint.sum(0) > 0  # no token is left at the end, where all are masks
        truth = joint.T[seen] / joint.T[seen].sum(-1, keepdims=True)
        times = when(s, chain.states), when(t, chain.states)
        close(process.reverse(x_t, log(predictor), *times)[seen], truth)
        mixed = predictor @ chain.between(0, s)[: chain.types]
        printed = (mixed * chain.between(s, t).T)[seen]
        printed /= printed.sum(-1, keepdims=True)
        gaps.append(abs(printed - truth).max())
    if isinstance(process, Absorbing):  # a mask says nothing about x~: the two are one
        assert max(gaps) < 1e-12
    else:
        assert max(gaps) > 0.05


def test_eq_4_as_printed_agrees_only_where_x_t_tells_nothing():
    """At the last step, when alpha is 0, q(x_t | x~) is the same for all x~."""
    process, chain = build("uniform", LOG_LINEAR)
    predictor = random_predictor(chain)[0]
    for s, t, agree in [(3, STEPS, True), (STEPS - 1, STEPS, True), (3, 4, False), (1, 6, False)]:
        printed = (predictor @ chain.between(0, s)) * chain.between(s, t).T
        printed /= printed.sum(-1, keepdims=True)
        times = when(s, TYPES), when(t, TYPES)
        reverse = process.reverse(torch.arange(TYPES), log(predictor), *times).numpy()
        assert (abs(printed - reverse).max() < 1e-12) == agree


def test_terms_of_the_bound(case):
    process, chain = case
    predictor = random_predictor(chain)
    x_t, x_0 = rows(chain.states, chain.types)
    for s, t in PAIRS:
        expected = chain.kl(predictor[t], s, t)[x_t, x_0]
        possible = ~np.isnan(expected)
        times = when(s, len(x_t)), when(t, len(x_t))
        terms = ForwardProcess.kl(process, x_0, x_t, log(predictor[t])[x_t], *times)
        close(terms[possible], expected[possible])


@pytest.mark.parametrize("own", [ForwardProcess.kl, Absorbing.kl], ids=["any process", "absorbing"])
@pytest.mark.parametrize("name", ["linear", "cosine", "log_linear", "mutual_information"])
def test_terms_of_the_absorbing_process_under_subs(own, name):
    """Its short form is the divergence, reconstruction included."""
    process, chain = build("absorbing", schedule_named(name))
    predictor = substituted(random_predictor(chain))
    x_t, x_0 = rows(chain.states, chain.types)
    for s, t in PAIRS:
        with np.errstate(divide="ignore"):
            expected = chain.kl(predictor[t], s, t)[x_t, x_0]
        possible = ~np.isnan(expected)
        times = when(s, len(x_t)), when(t, len(x_t))
        terms = own(process, x_0, x_t, log(predictor[t])[x_t], *times)
        close(terms[possible], expected[possible])


def test_without_subs_only_the_reconstruction_sees_what_is_said_of_tokens():
    """Before the last step the posteriors leave out what could not have become x_t."""
    process, chain = build("absorbing", LOG_LINEAR)
    log_p = log(random_predictor(chain)[3])
    x = torch.arange(TYPES)  # tokens that are what they were
    for s, expected in [(1, torch.zeros(TYPES)), (0, -log_p[x, x])]:
        times = when(s, TYPES), when(3, TYPES)
        close(ForwardProcess.kl(process, x, x, log_p[x], *times), expected.double())
        close(process.kl(x, x, log_p[x], *times), np.zeros(TYPES))
        close(process.kl(x, x, torch.full_like(log_p[x], -torch.inf), *times), np.zeros(TYPES))


def test_the_terms_have_the_gradients_of_the_formula(case):
    """By finite differences; at the end and at the start of the chain as well."""
    process, chain = case
    masks = torch.full((4,), chain.states - 1)
    x_0, s, t = torch.tensor([0, 1, 2, 3]), [0, 0, 3, 6], [1, STEPS, 5, 7]
    times = [torch.tensor(i, dtype=torch.float64) / STEPS for i in (s, t)]
    for x_t in (x_0, masks):
        logits = torch.randn(4, chain.types, dtype=torch.float64, requires_grad=True)

        def terms(logits, x_t=x_t):
            return process.kl(x_0, x_t, logits.log_softmax(-1), *times)

        assert torch.autograd.gradcheck(terms, logits)


@pytest.mark.parametrize("floor", [0, 0.3])
@pytest.mark.parametrize("name", ["linear", "cosine", "log_linear", "mutual_information"])
def test_prior_term(name, floor):
    """Nothing once alpha has reached 0; what is left of x_0 where it has not."""
    schedule = Floored(schedule_named(name), floor)
    process, chain = build("uniform", schedule)
    expected = divergence(chain.between(0, STEPS), np.full(TYPES, 1 / TYPES))
    close(process.prior_kl(torch.arange(TYPES)), expected)
    assert (expected > 0.1).all() if floor else (expected < 1e-12).all()
    masked = build("absorbing", schedule)[0].prior_kl(torch.arange(TYPES))
    assert masked.isinf().all() if floor else (masked == 0).all()  # a token is never drawn


def test_prior_term_of_any_chain():
    process, chain = build("dense", None)
    expected = divergence(chain.between(0, STEPS)[:TYPES], process.stationary.numpy())
    close(process.prior_kl(torch.arange(TYPES)), expected)


@pytest.mark.parametrize("kind", [Uniform, Absorbing])
def test_single_precision_is_enough_for_a_vocabulary(kind):
    """A thousand steps of 2,000 types: the bound is off by less than a thousandth of a nat."""
    types, steps = 2000, 1000
    exact, rough = (
        kind(schedule_named("cosine"), types, d) for d in (torch.float64, torch.float32)
    )
    t = torch.arange(1, steps + 1, 7, dtype=torch.float64) / steps
    s, x_0 = t - 1 / steps, torch.randint(types, t.shape)
    x_t = exact.corrupt(x_0, t, torch.rand(len(t), 2))
    log_p = (3 * torch.randn(len(t), types, dtype=torch.float64)).log_softmax(-1)
    terms = exact.kl(x_0, x_t, log_p, s, t)
    rounded = rough.kl(x_0, x_t, log_p.float(), s, t)
    assert rounded.dtype == torch.float32
    assert abs(steps * (rounded - terms).mean()) < 1e-3 * max(1, steps * terms.mean())
