"""Flexible length: its process and its loss against loops, quadrature and entropies."""

import math

import numpy as np
import pytest
import torch
from numerics import is_law, numbers
from scipy import integrate, stats
from sentences import UP_TO_ONE, UP_TO_THREE, UP_TO_TWO, Enumerated, pack

from difformer_plugin.diffusion.insertion.process import (
    ABSENT,
    MASKED,
    TOKEN,
    bregman,
    closed_up,
    corrupt,
    path_kl,
    presence,
)
from difformer_plugin.diffusion.schedules import SCHEDULES

COSINE = SCHEDULES["cosine"].normalised()
LINEAR = SCHEDULES["linear"].normalised()
LOG_LINEAR = SCHEDULES["log_linear"].normalised()

USED_SCHEDULES = [LOG_LINEAR, COSINE, LINEAR]

schedules = pytest.mark.parametrize(
    "schedule", USED_SCHEDULES, ids=["log_linear", "cosine", "linear"]
)


# the forward process


@schedules
@pytest.mark.parametrize("t", [0.02, 0.3, 0.7, 0.99])
def test_presence_is_the_integral_over_arrivals(schedule, t):
    """A token comes at the time u > t with density -alpha'(u), and has not been unmasked by t with
    probability (1 - alpha_t) / (1 - alpha_u)."""
    gone = (1 - schedule.alpha_bar(numbers(t))).item()

    def density(u):
        u = numbers(u)
        return (-schedule.derivative(u) / (1 - schedule.alpha_bar(u))).item() * gone

    masked, _ = integrate.quad(density, t, 1, epsabs=1e-12)
    found = presence(schedule, numbers(t))[0].numpy()
    np.testing.assert_allclose(found, [gone, masked, 1 - gone - masked], atol=1e-9)


@schedules
def test_presence_at_the_ends(schedule):
    found = presence(schedule, numbers(0, 1e-9, 1 - 1e-9, 1))
    assert found.isfinite().all() and (found >= 0).all()
    torch.testing.assert_close(found.sum(-1), torch.ones(4, dtype=torch.float64))
    torch.testing.assert_close(found[0], numbers(0, 0, 1), atol=1e-12, rtol=0)
    assert found[3].tolist() == [1, 0, 0]
    tiny = 10 ** torch.linspace(-17, -5, 10_000, dtype=torch.float64)
    assert (presence(schedule, 1 - tiny) >= 0).all()
    extremes = numbers(0, 1 - 1e-16)
    assert corrupt(schedule, numbers(0, 0), extremes).tolist() == [TOKEN, TOKEN]
    assert corrupt(schedule, numbers(1, 1), extremes).tolist() == [ABSENT, ABSENT]


def test_corrupt_follows_presence_and_goes_one_way():
    count, times = 20_000, np.linspace(0, 1, 9)
    u = torch.rand(count, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    before = torch.full((count,), TOKEN)
    for time in times:
        t = numbers(time).repeat(count)
        states = corrupt(COSINE, t, u)
        assert (states <= before).all()
        before = states
        expected = presence(COSINE, t[:1])[0].numpy()
        counts = np.bincount(states, minlength=3)
        assert counts[expected < 1e-12].sum() == 0
        possible = expected >= 1e-12
        assert is_law(counts[possible], expected[possible])


def closed_up_by_loops(sentences, states, mask):
    tokens, lengths, targets, missing = [], [], [], []
    for sentence, own in zip(sentences, states):
        left, gaps = [], [0]
        for token, state in zip(sentence, own):
            if state == ABSENT:
                gaps[-1] += 1
                continue
            left.append(mask if state == MASKED else token)
            gaps.append(0)
            if state == MASKED:
                targets.append(token)
        tokens += left
        lengths.append(len(left))
        missing += gaps
    return tokens, lengths, targets, missing


@pytest.mark.parametrize("present", [0.0, 0.3, 0.7, 1.0])
def test_closed_up_is_the_loop(present):
    random = np.random.default_rng(2)
    for count in [0, 1, 2, 30]:
        sentences = [random.integers(0, 50, random.integers(0, 9)).tolist() for _ in range(count)]
        p = [1 - present, present / 2, present / 2]
        states = [random.choice(3, len(sentence), p=p).tolist() for sentence in sentences]
        found = closed_up(*pack(sentences), pack(states)[0], 99)
        expected = closed_up_by_loops(sentences, states, 99)
        assert tuple(part.tolist() for part in found) == expected
        assert all(part.dtype == torch.int64 for part in found)


# the loss


def test_bregman_is_its_definition_and_least_at_the_count():
    a = torch.arange(6).repeat_interleave(200)
    b = torch.linspace(0.01, 9, 200, dtype=torch.float64).repeat(6)
    log_a = np.log(a.clamp(min=1).numpy())
    expected = b.numpy() - a.numpy() * (np.log(b.numpy()) - log_a + 1)
    np.testing.assert_allclose(bregman(a, b.log()).numpy(), expected, atol=1e-12)
    assert (bregman(a, b.log()) > -1e-12).all()
    counts = torch.arange(1, 300)
    at_count = counts.double().log().requires_grad_()
    assert bregman(counts, at_count).abs().max() < 1e-11
    for loss in [bregman, path_kl]:
        (gradient,) = torch.autograd.grad(loss(counts, at_count).sum(), at_count)
        assert gradient.abs().max() < 1e-10
    none = bregman(torch.zeros(3, dtype=torch.int64), torch.tensor([-80.0, -200.0, 3.0]))
    torch.testing.assert_close(none, torch.tensor([0.0, 0.0, math.exp(3)]), atol=1e-30, rtol=1e-6)


def entropy(data):
    return stats.entropy(list(data.values()))


def insertion_order(data):
    """The mean of the sum of log a over the insertions that each find a tokens absent in their gap:
    they come in random order, and each splits its gap's absent tokens in two."""
    mean = [0.0]
    for n in range(1, 4):
        halves = [mean[left] + mean[n - 1 - left] for left in range(n)]
        mean.append(math.log(n) + np.mean(halves))
    return sum(p * mean[len(x)] for x, p in data.items())


@schedules
@pytest.mark.parametrize("data", [UP_TO_ONE, UP_TO_TWO, UP_TO_THREE], ids=["1", "2", "3"])
def test_the_true_predictions_reach_the_entropy(schedule, data):
    """The length's included. `path_kl` gives it exactly; `bregman` more, by the order in which the
    tokens are inserted, so by nothing where there is at most one."""
    enumerated = Enumerated(data)
    truth = entropy(data)
    assert enumerated.loss(schedule, path_kl) == pytest.approx(truth, abs=1e-6)
    with_bregman = enumerated.loss(schedule, bregman)
    assert with_bregman == pytest.approx(truth + insertion_order(data), abs=1e-6)
    assert data is UP_TO_ONE or with_bregman > truth + 0.1


@pytest.mark.parametrize("size", [0.01, 0.03, 0.1, 0.3, 1.0])
@pytest.mark.parametrize("phi", [bregman, path_kl])
def test_any_other_predictions_are_worse(phi, size):
    enumerated = Enumerated(UP_TO_TWO)
    truth = enumerated.loss(COSINE, phi)
    assert enumerated.loss(COSINE, phi, size) > truth + 0.01 * size**2
