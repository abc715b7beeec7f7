"""Score entropy and its samplers against rate matrices, Bayes' rule and enumerated chains."""

import itertools

import numpy as np
import pytest
import torch
from scipy import linalg, stats

from difformer_plugin.diffusion.discrete.categorical import Absorbing, Process, Uniform
from difformer_plugin.diffusion.discrete.sampling import draw
from difformer_plugin.diffusion.discrete.schedules import (
    Cosine,
    Floored,
    Linear,
    LogLinear,
    entropy,
)
from difformer_plugin.diffusion.discrete.scores import score_entropy, tau_leap, tweedie

V = 5
DATA = np.array([0.4, 0.25, 0.2, 0.1, 0.05])
SCHEDULES = [LogLinear(), Cosine(), Linear()]
KINDS = ["uniform", "absorbing"]
# of two positions of three types, far from independent
PAIRS = np.array([[0.3, 0.02, 0.08], [0.05, 0.25, 0.0], [0.1, 0.0, 0.2]])

kinds = pytest.mark.parametrize("kind", KINDS)
schedules = pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)


def make(kind, schedule=None, types=V):
    schedule = LogLinear() if schedule is None else schedule
    if kind == "uniform":
        return Uniform(Floored(schedule, 1e-3), types, torch.float64)
    return Absorbing(schedule, types, torch.float64)


def numbers(*values):
    return torch.tensor(values, dtype=torch.float64)


def alphas(process, *times):
    return process.schedule.alpha(numbers(*times)).numpy()


def rates(process):
    """Q, rows "from", as its definition has it."""
    to = np.zeros(process.states)
    if isinstance(process, Uniform):
        to[:] = 1 / process.types
    else:
        to[process.mask] = 1
    return np.tile(to, (process.states, 1)) - np.eye(process.states)


def chain(process, s, t):
    """exp((sigma-bar_t - sigma-bar_s) Q), by SciPy."""
    before, after = alphas(process, s, t)
    return linalg.expm(np.log(before / after) * rates(process))


def sigma(process, t, h=1e-6):
    """The derivative of sigma-bar = -log alpha, by differences."""
    before, after = alphas(process, t - h, t + h)
    return np.log(before / after) / (2 * h)


def marginal(process, t):
    """p_t over the states for one position of DATA."""
    return np.pad(DATA, (0, process.states - V)) @ chain(process, 0, t)


def as_ratios(process, output, x_t, t):
    """s (S,) with s_{x_t} = 1, from a network's output (n,), by the definition."""
    alpha = alphas(process, t)[0]
    scale = 1 if isinstance(process, Uniform) else alpha / (1 - alpha)
    ratios = np.pad(scale * np.exp(output), (0, process.states - process.types))
    ratios[x_t] = 1
    return ratios


def true_outputs(process, t):
    """What a perfect network returns at each state, (S, n); noise where it must not count."""
    p, alpha = marginal(process, t), alphas(process, t)[0]
    if isinstance(process, Uniform):
        outputs = np.log(p[None] / p[:, None])
        np.fill_diagonal(outputs, np.random.default_rng(0).normal(size=V))
        return torch.from_numpy(outputs)
    outputs = np.random.default_rng(0).normal(size=(V + 1, V))
    outputs[V] = np.log(p[:V] / p[V] * (1 - alpha) / alpha)
    return torch.from_numpy(outputs)


def nodes(order=12):
    """Times and weights of an integral over (0, 1) that may be singular at both ends."""
    ends = 10.0 ** np.arange(-10, 0)
    cuts = np.concatenate([[0], ends, [0.5], 1 - ends[::-1], [1]])
    x, w = np.polynomial.legendre.leggauss(order)
    half = np.diff(cuts)[:, None] / 2
    return ((cuts[:-1, None] + half) + half * x).ravel(), (half * w).ravel()


# the loss


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


@kinds
@schedules
def test_score_entropy_is_its_definition(kind, schedule):
    process, random = make(kind, schedule), np.random.default_rng(1)
    for t in [0.03, 0.4, 0.9, 0.98]:
        rows = [
            (x_0, x_t)
            for x_0, x_t in itertools.product(range(V), range(process.states))
            if chain(process, 0, t)[x_0, x_t] > 0
        ]
        outputs = random.normal(size=(len(rows), V), scale=2)
        expected = [
            score_entropy_by_definition(process, output, *row, t)
            for output, row in zip(outputs, rows)
        ]
        x_0, x_t = torch.tensor(rows).unbind(1)
        times = torch.full((len(rows),), t, dtype=torch.float64)
        found = score_entropy(process, torch.from_numpy(outputs), x_0, x_t, times)
        assert found.numpy() == pytest.approx(np.array(expected), rel=1e-5, abs=1e-8)


@kinds
@pytest.mark.parametrize("t", [0.05, 0.5, 0.95])
def test_minimal_at_the_true_ratios(kind, t):
    """The mean over x_0 given x_t, for each x_t: no gradient there, and more beside it."""
    process = make(kind)
    forward = chain(process, 0, t)
    x_0, x_t = torch.cartesian_prod(torch.arange(V), torch.arange(process.states)).unbind(1)
    weight = torch.from_numpy(DATA[x_0.numpy()] * forward[x_0.numpy(), x_t.numpy()])
    times = torch.full_like(weight, t)

    def loss(outputs):
        terms = score_entropy(process, outputs[x_t], x_0, x_t, times)
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
    expected = schedule.hazard(t) * losses * (x_t == process.mask)
    found = score_entropy(process, logits.log_softmax(-1), x_0, x_t, t)
    torch.testing.assert_close(found, expected)


@kinds
@schedules
def test_nothing_is_infinite_at_the_ends(kind, schedule):
    """In single precision, with the gradient; at t = 0 nothing has been corrupted."""
    process = make(kind, schedule)
    noisy = 0 if kind == "uniform" else process.mask
    t = numbers(0, 0, 1e-12, 1e-12, 1e-4, 1 - 1e-12, 1 - 1e-12, 1, 1)
    x_0 = torch.tensor([0, 4, 1, 1, 1, 2, 2, 3, 3])
    x_t = torch.tensor([0, 4, noisy, 1, noisy, noisy, 2, noisy, noisy])
    outputs = torch.randn(len(t), V, generator=torch.Generator().manual_seed(5)).requires_grad_()
    terms = score_entropy(process, outputs, x_0, x_t, t)
    assert terms.dtype == torch.float32
    (gradient,) = torch.autograd.grad(terms.sum(), outputs)
    assert terms.isfinite().all() and gradient.isfinite().all()
    uncounted = torch.ones_like(outputs, dtype=torch.bool)
    if kind == "uniform":
        uncounted = torch.nn.functional.one_hot(x_t, V).bool()
    else:
        uncounted[x_t == process.mask] = False
    assert (gradient[uncounted] == 0).all()
    assert gradient[~uncounted & (t > 1e-4)[:, None]].abs().min() > 0


def test_single_precision_over_many_types():
    """Ten thousand brackets that nearly cancel keep their digits."""
    n, rows = 10_000, 64
    single, double = (
        Uniform(Floored(LogLinear(), 1e-3), n, d) for d in (torch.float, torch.double)
    )
    generator = torch.Generator().manual_seed(6)
    outputs = 0.1 * torch.randn(rows, n, generator=generator)
    x_0, x_t = torch.randint(n, (2, rows), generator=generator)
    x_t[::2] = x_0[::2]
    t = torch.rand(rows, dtype=torch.float64, generator=generator)
    found = score_entropy(single, outputs, x_0, x_t, t)
    expected = score_entropy(double, outputs.double(), x_0, x_t, t)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)


# the analytic sampler


@kinds
@schedules
@pytest.mark.parametrize("t", [0.1, 0.5, 0.9, 1.0])
def test_tweedie_is_bayes_rule(kind, schedule, t):
    """p_s(y) q(x_t | y) / p_t(x_t), for each x_t and all s < t."""
    process = make(kind, schedule)
    near = min(t, 1 - 1e-9) if kind == "absorbing" else t  # where its sigma-bar is still finite
    p_t, outputs = marginal(process, near), true_outputs(process, near)
    x_t = torch.arange(process.states)
    for s in [0.0, 1e-6, 0.25 * t, 0.6 * t, 0.99 * t]:
        bayes = (marginal(process, s)[:, None] * chain(process, s, near) / p_t).T
        times = (numbers(s).repeat(len(x_t)), numbers(t).repeat(len(x_t)))
        found = tweedie(process, outputs, x_t, *times)
        possible = p_t > 0
        np.testing.assert_allclose(found.numpy()[possible], bayes[possible], atol=1e-7)


@kinds
def test_tweedie_of_any_ratios(kind):
    """[exp(-dsigma Q^T) s]_y exp(dsigma Q)(y, x_t), never below 0, normalised."""
    process, random, cut = make(kind), np.random.default_rng(7), 0
    for s, t in [(0.01, 0.3), (0.3, 0.5), (0.5, 0.95), (0.05, 0.99)]:
        outputs = random.normal(size=(process.states, V), scale=1.5) - 1
        found = tweedie(
            process,
            torch.from_numpy(outputs),
            torch.arange(process.states),
            numbers(s).repeat(process.states),
            numbers(t).repeat(process.states),
        )
        there = chain(process, s, t)
        for x_t in range(process.states):
            ratios = as_ratios(process, outputs[x_t], x_t, t)
            if kind == "absorbing" and x_t != process.mask:
                ratios = np.eye(process.states)[x_t]
            raw = (np.linalg.inv(there).T @ ratios) * there[:, x_t]
            cut += (raw < -1e-9).sum()
            expected = raw.clip(min=0) / raw.clip(min=0).sum()
            np.testing.assert_allclose(found[x_t].numpy(), expected, atol=1e-9)
    assert cut > 2  # or nothing was cut and that went untested


def test_no_mask_is_left_at_the_end():
    """Whatever the ratios sum to, and with all the noise gone in one step."""
    process = make("absorbing", Cosine())
    generator = torch.Generator().manual_seed(8)
    logits = torch.randn(6, V, dtype=torch.float64, generator=generator)
    shift = numbers(-800, -5, 0, 5, 100, 0)[:, None]
    x_t = torch.tensor([V, V, V, V, V, 2])
    t = numbers(0.2, 1, 1, 1, 0.5, 0.7)
    found = tweedie(process, logits + shift, x_t, torch.zeros_like(t), t)
    torch.testing.assert_close(found[:5, :V], logits[:5].softmax(-1))
    assert (found[:5, V] == 0).all()
    assert found[5].tolist() == [0, 0, 1, 0, 0, 0]


# tau-leaping


@kinds
@schedules
def test_tau_leap_is_its_definition(kind, schedule):
    process, random, scaled = make(kind, schedule), np.random.default_rng(9), 0
    for s, t in [(0.05, 0.1), (0.3, 0.5), (0.1, 0.9)]:
        outputs = random.normal(size=(process.states, V))
        x_t = torch.arange(process.states)
        times = (numbers(s).repeat(len(x_t)), numbers(t).repeat(len(x_t)))
        found = tau_leap(process, torch.from_numpy(outputs), x_t, *times).numpy()
        for x in range(process.states):
            jumps = rates(process)[:, x] * as_ratios(process, outputs[x], x, t)
            jumps[x] = 0
            jumps *= (t - s) * sigma(process, t)
            scaled += jumps.sum() > 1
            jumps /= max(jumps.sum(), 1)
            jumps[x] = 1 - jumps.sum()
            np.testing.assert_allclose(found[x], jumps, rtol=1e-5, atol=1e-9)
    assert scaled > 0


def kernel(step, process, outputs, s, t):
    """p(x_s | x_t) of a sampler, (S, S), rows x_t."""
    x_t = torch.arange(process.states)
    return step(process, outputs, x_t, numbers(s).repeat(len(x_t)), numbers(t).repeat(len(x_t)))


def law(step, process, times):
    """The law of x at times[0] after steps from p_t at times[-1], with the true ratios."""
    p = torch.from_numpy(marginal(process, times[-1]))
    for s, t in zip(times[-2::-1], times[:0:-1]):
        p = p @ kernel(step, process, true_outputs(process, t), s, t)
    return p.numpy()


@kinds
@pytest.mark.parametrize("steps", [1, 2, 8])
def test_tweedie_steps_give_the_data(kind, steps):
    process = make(kind)
    times = np.linspace(0, 1 - 1e-9, steps + 1)
    found = law(tweedie, process, times)
    np.testing.assert_allclose(found, np.pad(DATA, (0, process.states - V)), atol=1e-6)


@kinds
def test_tau_leaping_tends_to_the_reverse_chain(kind):
    """From 0.9 to 0.1, from each state: the error falls with the step. (Where the ratios sum to 1,
    absorbing and log-linear, a tau-leap would be exact: it is Tweedie's step.)"""
    process, s, t = make(kind, Cosine()), 0.1, 0.9
    p_t = marginal(process, t)
    bayes = (marginal(process, s)[:, None] * chain(process, s, t) / p_t).T
    errors = []
    for steps in [32, 64, 128, 256]:
        times, whole = np.linspace(s, t, steps + 1), np.eye(process.states)
        for before, after in zip(times[-2::-1], times[:0:-1]):
            outputs = true_outputs(process, after)
            whole = whole @ kernel(tau_leap, process, outputs, before, after).numpy()
        errors.append(np.abs(whole - bayes).max())
    assert errors[-1] < 0.01
    assert all(1.8 < a / b < 2.2 for a, b in itertools.pairwise(errors))


# sampling two positions


def pair_outputs(process, x_t, t):
    """What a perfect network returns for PAIRS, both positions: x_t (N, 2) -> (N, 2, n)."""
    forward = chain(process, 0, t)[: process.types]
    p, alpha = forward.T @ PAIRS @ forward, alphas(process, t)[0]
    first, second = p[:, x_t[:, 1]].T, p[x_t[:, 0], :]
    own = p[x_t[:, 0], x_t[:, 1]]
    scale = own if isinstance(process, Uniform) else own * alpha / (1 - alpha)
    ratios = np.stack([first, second], 1)[..., : process.types]
    # what steps can reach and the data cannot: anything will do
    ratios = np.where(scale[:, None, None] > 0, ratios / scale.clip(min=1e-30)[:, None, None], 1)
    return torch.from_numpy(np.log(np.maximum(ratios, 1e-30)))


def pair_step(step, process, x_t, s, t):
    """p(x_s | x_t) of each of two positions, (N, 2, S), by the function under test."""
    outputs = pair_outputs(process, x_t, t).flatten(0, 1)
    x = torch.from_numpy(x_t).flatten()
    times = (numbers(s).repeat(len(x)), numbers(t).repeat(len(x)))
    return step(process, outputs, x, *times).unflatten(0, (-1, 2))


def pair_kernel(step, process, s, t):
    """The same by matrices, as the law of pairs: (S^2, S^2), rows x_t."""
    states = process.states
    there = chain(process, s, t)
    inverse = np.linalg.inv(there).T
    pairs = np.array(list(itertools.product(range(states), repeat=2)))
    outputs, rows = pair_outputs(process, pairs, t).numpy(), []
    for pair, output in zip(pairs, outputs):
        each = []
        for x, own in zip(pair, output):
            ratios = as_ratios(process, own, x, t)
            if isinstance(process, Absorbing) and x != process.mask:
                ratios = np.eye(states)[x]
            if step is tweedie:
                p = ((inverse @ ratios) * there[:, x]).clip(min=0)
                if s == 0 and states > process.types:
                    p[process.mask] = 0
            else:
                p = (t - s) * sigma(process, t) * rates(process)[:, x] * ratios
                p[x] = 0
                p /= max(p.sum(), 1)
                p[x] = 1 - p.sum()
            each.append(p / p.sum())
        rows.append(np.outer(*each).ravel())
    return np.array(rows)


@kinds
@pytest.mark.parametrize("step", [tweedie, tau_leap], ids=lambda step: step.__name__)
def test_samples_follow_the_enumerated_law(kind, step):
    """Five steps with a true network of two positions, the last one by `tweedie`."""
    process, count = make(kind, Cosine(), types=3), 40_000
    times = np.linspace(0, 1 - 1e-3, 6)
    generator = torch.Generator().manual_seed(10)
    u = torch.rand(len(times), count, 2, dtype=torch.float64, generator=generator)
    x = process.prior(u[0].flatten()).unflatten(0, (-1, 2)).numpy()
    prior = process.prior_probs("cpu").numpy()
    expected = np.outer(prior, prior).ravel()
    for i in range(5, 0, -1):
        s, t, form = times[i - 1], times[i], step if i > 1 else tweedie
        probs = pair_step(form, process, x, s, t)
        x = draw(probs.flatten(0, 1), u[i].flatten()).unflatten(0, (-1, 2)).numpy()
        expected = expected @ pair_kernel(form, process, s, t)
    counts = np.bincount(x @ [process.states, 1], minlength=process.states**2)
    possible = expected > 1e-9
    assert counts[~possible].sum() == 0
    scaled = expected[possible] / expected[possible].sum()
    assert stats.chisquare(counts[possible], scaled * count).pvalue > 1e-3
    # nor is the law of few steps the data's: the one taken for the other would be seen
    data = np.pad(PAIRS, (0, process.states - 3)).ravel()
    assert 0.01 < np.abs(expected - data).sum() < 0.3


@pytest.mark.parametrize("function", [score_entropy, tweedie, tau_leap])
def test_other_processes_have_no_scores(function):
    with pytest.raises(NotImplementedError, match="of Process$"):
        function(Process(V, V), None, None, None, None)
