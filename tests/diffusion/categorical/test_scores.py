"""Score entropy against rate matrices, entropies and MDLM's loss; `numerics`, `score_chains`."""

import itertools

import numpy as np
import pytest
import torch
from numerics import nodes, numbers
from score_chains import (
    DATA,
    V,
    as_ratios,
    chain,
    kinds,
    make,
    rates,
    schedules,
    sigma,
    true_outputs,
)

from difformer_plugin.diffusion.categorical.information import entropy
from difformer_plugin.diffusion.categorical.process import ForwardProcess, Uniform
from difformer_plugin.diffusion.categorical.scores import (
    score_entropy,
    squared_error,
    tau_leap,
    tweedie,
)
from difformer_plugin.diffusion.schedules import SCHEDULES, Floored

LOG_LINEAR = SCHEDULES["log_linear"].normalised()


def score_entropy_by_definition(process, output, x_0, x_t, t):
    into, p = rates(process)[:, x_t], chain(process, 0, t)[x_0]
    ratios, total = as_ratios(process, output, x_t, t), 0.0
    for y in range(process.states):
        if y != x_t and into[y] > 0:
            r = p[y] / p[x_t]
            k = r * (np.log(r) - 1) if r > 0 else 0.0
            bracket = ratios[y] - r * np.log(ratios[y]) + k
            assert bracket > -1e-12
            total += sigma(process, t) * into[y] * bracket
    return total


def squared_error_by_definition(process, output, x_0, x_t, t):
    into, p = rates(process)[:, x_t], chain(process, 0, t)[x_0]
    ratios = as_ratios(process, output, x_t, t)
    wrong = [ratios[y] - p[y] / p[x_t] for y in range(process.states) if y != x_t and into[y] > 0]
    return sum(error**2 for error in wrong) / 2


BY_DEFINITION = {
    score_entropy: score_entropy_by_definition,
    squared_error: squared_error_by_definition,
}
losses = pytest.mark.parametrize("loss_of_scores", BY_DEFINITION, ids=lambda f: f.__name__)


@losses
@kinds
@schedules
def test_losses_are_their_definitions(kind, schedule, loss_of_scores):
    process, random = make(kind, schedule), np.random.default_rng(1)
    for t in [0.03, 0.4, 0.9, 0.98]:
        rows = [
            (x_0, x_t)
            for x_0, x_t in itertools.product(range(V), range(process.states))
            if chain(process, 0, t)[x_0, x_t] > 0
        ]
        outputs = random.normal(size=(len(rows), V), scale=2)
        expected = [
            BY_DEFINITION[loss_of_scores](process, output, *row, t)
            for output, row in zip(outputs, rows)
        ]
        x_0, x_t = torch.tensor(rows).unbind(1)
        times = torch.full((len(rows),), t, dtype=torch.float64)
        found = loss_of_scores(process, torch.from_numpy(outputs), x_0, x_t, times)
        assert found.numpy() == pytest.approx(np.array(expected), rel=1e-5, abs=1e-8)


@losses
@kinds
@pytest.mark.parametrize("t", [0.05, 0.5, 0.95])
def test_minimal_at_the_true_ratios(kind, t, loss_of_scores):
    """The mean over x_0 given x_t, for each x_t: no gradient there, and more beside it."""
    process = make(kind)
    forward = chain(process, 0, t)
    x_0, x_t = torch.cartesian_prod(torch.arange(V), torch.arange(process.states)).unbind(1)
    weight = torch.from_numpy(DATA[x_0.numpy()] * forward[x_0.numpy(), x_t.numpy()])
    times = torch.full_like(weight, t)

    def loss(outputs):
        terms = loss_of_scores(process, outputs[x_t], x_0, x_t, times)
        return (weight * torch.where(weight > 0, terms, 0)).sum()

    truth = true_outputs(process, t).requires_grad_()
    least = loss(truth)
    (gradient,) = torch.autograd.grad(least, truth)
    assert gradient.abs().max() < 1e-12
    generator = torch.Generator().manual_seed(3)
    for size in [0.01, 0.1, 1.0]:
        for _ in range(20):
            noise = size * torch.randn(truth.shape, dtype=torch.float64, generator=generator)
            assert loss(truth + noise) > least


@kinds
@schedules
def test_the_true_ratios_reach_the_entropy(kind, schedule):
    """The integral and the prior's KL: with p(x_T) as it is, no more than what x_0 costs."""
    process, integral = make(kind, schedule), 0.0
    for t, weight in zip(*nodes()):
        forward = process.row(torch.arange(V), numbers(0).repeat(V), numbers(t).repeat(V))
        p = torch.from_numpy(DATA) @ forward
        if kind == "uniform":
            outputs = (p[None] / p[:, None]).log()
        else:
            outputs = torch.from_numpy(np.log(DATA)).repeat(V + 1, 1)
        x_0, x_t = torch.cartesian_prod(torch.arange(V), torch.arange(process.states)).unbind(1)
        joint = torch.from_numpy(DATA)[x_0] * forward[x_0, x_t]
        terms = score_entropy(process, outputs[x_t], x_0, x_t, numbers(t).expand(len(x_0)))
        integral += weight * (joint * terms)[joint > 0].sum().item()
    last = process.row(torch.arange(V), numbers(0).repeat(V), numbers(1).repeat(V))
    p = torch.from_numpy(DATA) @ last
    true_prior = torch.from_numpy(DATA) @ (torch.xlogy(last, last) - torch.xlogy(last, p)).sum(-1)
    kl = torch.from_numpy(DATA) @ process.prior_kl(torch.arange(V))
    truth = entropy(torch.from_numpy(DATA)).item()
    assert integral + true_prior.item() == pytest.approx(truth, abs=1e-6)
    assert integral + kl.item() >= truth - 1e-7
    if kind == "absorbing":
        assert kl == 0
    else:
        assert 1e-8 < kl - true_prior < 1e-6  # what the floor costs


@schedules
def test_normalised_absorbing_ratios_give_mdlm(schedule):
    """-alpha' / (1 - alpha) times the cross-entropy of each mask, nothing for a token."""
    process, count = make("absorbing", schedule), 40
    generator = torch.Generator().manual_seed(4)
    logits = torch.randn(count, V, dtype=torch.float64, generator=generator)
    x_0 = torch.randint(V, (count,), generator=generator)
    t = torch.rand(count, dtype=torch.float64, generator=generator)
    x_t = torch.where(torch.arange(count) % 3 == 0, x_0, process.mask)
    losses = torch.nn.functional.cross_entropy(logits, x_0, reduction="none")
    expected = schedule.unmasking_rate(t) * losses * (x_t == process.mask)
    found = score_entropy(process, logits.log_softmax(-1), x_0, x_t, t)
    torch.testing.assert_close(found, expected)


@losses
@kinds
@schedules
def test_nothing_is_infinite_at_the_ends(kind, schedule, loss_of_scores):
    """In single precision, with the gradient; at t = 0 nothing has been corrupted."""
    process = make(kind, schedule)
    noisy = 0 if kind == "uniform" else process.mask
    t = numbers(0, 0, 1e-12, 1e-12, 1e-4, 1 - 1e-12, 1 - 1e-12, 1, 1)
    x_0 = torch.tensor([0, 4, 1, 1, 1, 2, 2, 3, 3])
    x_t = torch.tensor([0, 4, noisy, 1, noisy, noisy, 2, noisy, noisy])
    outputs = torch.randn(len(t), V, generator=torch.Generator().manual_seed(5)).requires_grad_()
    terms = loss_of_scores(process, outputs, x_0, x_t, t)
    assert terms.dtype == torch.float32
    (gradient,) = torch.autograd.grad(terms.sum(), outputs)
    assert terms.isfinite().all() and gradient.isfinite().all()
    uncounted = torch.ones_like(outputs, dtype=torch.bool)
    if kind == "uniform":
        uncounted = torch.nn.functional.one_hot(x_t, V).bool()
    else:
        uncounted[x_t == process.mask] = False
    assert (gradient[uncounted] == 0).all()
    counted = t > 1e-4
    if loss_of_scores is squared_error and kind == "absorbing":
        counted = (t >= 1e-4) & (t < 1 - 1e-9)  # at the end all ratios to a mask are 0
    assert gradient[~uncounted & counted[:, None]].abs().min() > 0


def test_single_precision_over_many_types():
    """Ten thousand brackets that nearly cancel keep their digits."""
    n, rows = 10_000, 64
    single, double = (Uniform(Floored(LOG_LINEAR, 1e-3), n, d) for d in (torch.float, torch.double))
    generator = torch.Generator().manual_seed(6)
    outputs = 0.1 * torch.randn(rows, n, generator=generator)
    x_0, x_t = torch.randint(n, (2, rows), generator=generator)
    x_t[::2] = x_0[::2]
    t = torch.rand(rows, dtype=torch.float64, generator=generator)
    found = score_entropy(single, outputs, x_0, x_t, t)
    expected = score_entropy(double, outputs.double(), x_0, x_t, t)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("function", [score_entropy, squared_error, tweedie, tau_leap])
def test_other_processes_have_no_scores(function):
    with pytest.raises(NotImplementedError, match="of ForwardProcess$"):
        function(ForwardProcess(V, V), None, None, None, None)
