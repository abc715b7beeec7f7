"""The samplers of score entropy against Bayes' rule, matrices and enumerated chains."""

import itertools

import numpy as np
import pytest
import torch
from numerics import is_law, numbers
from pair_laws import PAIRS, pair_kernel, pair_outputs
from score_chains import (
    DATA,
    V,
    as_ratios,
    chain,
    kinds,
    make,
    marginal,
    rates,
    schedules,
    sigma,
    true_outputs,
)

from difformer_plugin.diffusion.categorical.draws import draw
from difformer_plugin.diffusion.categorical.scores import tau_leap, tweedie
from difformer_plugin.diffusion.schedules import SCHEDULES

COSINE = SCHEDULES["cosine"].normalised()


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
    process = make("absorbing", COSINE)
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
    process, s, t = make(kind, COSINE), 0.1, 0.9
    p_t = marginal(process, t)
    bayes = (marginal(process, s)[:, None] * chain(process, s, t) / p_t).T
    errors = []
    for steps in [32, 64, 128]:
        times, whole = np.linspace(s, t, steps + 1), np.eye(process.states)
        for before, after in zip(times[-2::-1], times[:0:-1]):
            outputs = true_outputs(process, after)
            whole = whole @ kernel(tau_leap, process, outputs, before, after).numpy()
        errors.append(np.abs(whole - bayes).max())
    assert errors[-1] < 0.02
    assert all(1.8 < a / b < 2.2 for a, b in itertools.pairwise(errors))


# sampling two positions


def pair_step(step, process, x_t, s, t):
    """p(x_s | x_t) of each of two positions, (N, 2, S), by the function under test."""
    outputs = pair_outputs(process, x_t, t).flatten(0, 1)
    x = torch.from_numpy(x_t).flatten()
    times = (numbers(s).repeat(len(x)), numbers(t).repeat(len(x)))
    return step(process, outputs, x, *times).unflatten(0, (-1, 2))


@kinds
@pytest.mark.parametrize("step", [tweedie, tau_leap], ids=lambda step: step.__name__)
def test_samples_follow_the_enumerated_law(kind, step):
    """Five steps with a true network of two positions, the last one by `tweedie`."""
    process, count = make(kind, COSINE, types=3), 40_000
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
    assert is_law(counts[possible], scaled)
    # nor is the law of few steps the data's: the one taken for the other would be seen
    data = np.pad(PAIRS, (0, process.states - 3)).ravel()
    assert 0.01 < np.abs(expected - data).sum() < 0.3
