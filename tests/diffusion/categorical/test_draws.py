"""Draws against the distributions they are drawn from: chi-square tests with fixed numbers."""

import numpy as np
import pytest
import torch
from enumeration import (
    CASES,
    KINDS,
    STEPS,
    TYPES,
    build,
    log,
    schedule_named,
    when,
)
from pair_laws import DATA, ancestral_law, fits, predictors

from difformer_plugin.diffusion.categorical.draws import draw, draw_type, sharpen
from difformer_plugin.diffusion.categorical.times import decoding_times
from difformer_plugin.diffusion.schedules import SCHEDULES

LOG_LINEAR = SCHEDULES["log_linear"].normalised()

DRAWS = 20_000
LAST = float(np.nextafter(1, 0))  # the largest u there is


@pytest.fixture
def uniforms():
    """A function that gives uniform numbers, always the same ones in a test."""
    generator = torch.Generator().manual_seed(20)
    return lambda *shape: torch.rand(shape, generator=generator, dtype=torch.float64)


# single draws


def test_draws_follow_the_weights(uniforms):
    weights = torch.tensor([0.0, 3, 0, 1, 0.5, 0, 2, 0])
    states = draw(weights.expand(DRAWS, -1), uniforms(DRAWS))
    assert states.dtype == torch.int64
    assert fits(states, weights / weights.sum())


def test_the_test_can_tell():
    """A twentieth of the mass elsewhere, or one draw of what cannot be, is noticed."""
    states = torch.arange(DRAWS) % 4
    assert fits(states, [0.25] * 4)
    assert not fits(states, [0.3, 0.2, 0.25, 0.25])
    assert not fits(torch.cat([states, torch.tensor([4])]), [0.25] * 4 + [0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1e-30, 1, 1e30])
def test_draws_at_the_ends_of_the_unit_interval(dtype, scale):
    """The first state that can be for u = 0, the last for the largest u; none without weight."""
    weights = scale * torch.tensor([[0, 1, 2, 0], [1, 0, 0, 0], [0, 0, 0, 5], [1, 1, 1, 1]])
    for u, expected in [(0.0, [1, 0, 3, 0]), (LAST, [2, 0, 3, 3])]:
        states = draw(weights.to(dtype), torch.full((4,), u, dtype=torch.float64))
        assert states.tolist() == expected
    assert draw(weights.to(dtype), torch.full((4,), 1 - 2**-24)).tolist() == [2, 0, 3, 3]


def test_the_largest_u_is_never_beyond_the_last_state(uniforms):
    """Whatever the sum is rounded to, and whatever follows the last weight."""
    weights = uniforms(2000, 9) * (uniforms(2000, 9) < 0.5)
    weights[:, 4] += 1e-9
    last = [max(np.flatnonzero(row)) for row in weights.numpy()]
    assert draw(weights, torch.full((2000,), LAST, dtype=torch.float64)).tolist() == last


def test_draws_are_the_inverse_of_the_distribution_function(uniforms):
    u = uniforms(100)
    weights = torch.tensor([0.25, 0.5, 0.25]).expand(100, -1)
    expected = [0 if x < 0.25 else 1 if x < 0.75 else 2 for x in u.tolist()]
    assert draw(weights, u).tolist() == expected


def test_draws_of_a_whole_vocabulary(uniforms):
    """The rarest of 40,000 types has its own place in the unit interval."""
    weights = torch.ones(3, 40_000)
    u = torch.tensor([0.5, 39_998.5, 39_999.5], dtype=torch.float64) / 40_000
    assert draw(weights, u).tolist() == [0, 39_998, 39_999]


@pytest.mark.parametrize("count", [1, 2, 3, 5, 40_000, 65_537])
def test_types_are_equally_likely(count, uniforms):
    ends = draw_type(torch.tensor([0, LAST], dtype=torch.float64), count)
    assert ends.tolist() == [0, count - 1]
    assert draw_type(torch.tensor([1 - 2**-24]), count).tolist() == [int((1 - 2**-24) * count)]
    if count < 10:
        assert fits(draw_type(uniforms(DRAWS), count), [1 / count] * count)


@pytest.mark.parametrize("temperature", [0.5, 1, 2])
def test_sharpening_is_a_power_of_the_probabilities(temperature):
    probs = torch.rand(6, 4, dtype=torch.float64) + 0.01
    expected = probs ** (1 / temperature)
    expected /= expected.sum(-1, keepdim=True)
    torch.testing.assert_close(sharpen(probs.log(), temperature), expected)
    torch.testing.assert_close(sharpen(probs.log() - 7, temperature), expected)


def test_without_temperature_all_is_on_the_best(uniforms):
    probs = torch.tensor([[0.2, 0.5, 0.3], [0.0, 0.4, 0.6]])
    expected = torch.tensor([[0.0, 1, 0], [0, 0, 1]])
    assert sharpen(probs.log(), 0).equal(expected)
    torch.testing.assert_close(sharpen(probs.log(), 0.001), expected)
    for u in (0.0, 0.5, LAST):
        assert draw(expected, torch.full((2,), u, dtype=torch.float64)).tolist() == [1, 2]


# a process's draws


@pytest.mark.parametrize("kind, name", CASES)
def test_corruption(kind, name, uniforms):
    process, chain = build(kind, name and schedule_named(name))
    for x_0, t in [(0, 1), (2, 4), (4, STEPS)]:
        x = torch.full((DRAWS,), x_0)
        states = process.corrupt(x, when(t, DRAWS), uniforms(DRAWS, 2))
        assert fits(states, chain.between(0, t)[x_0])


def test_nothing_is_corrupted_at_the_start():
    x_0, u = torch.arange(TYPES), torch.full((TYPES, 2), LAST, dtype=torch.float64)
    for kind in KINDS:
        process, _ = build(kind, LOG_LINEAR)
        assert process.corrupt(x_0, when(0, TYPES), u).equal(x_0)


@pytest.mark.parametrize("kind", ["uniform", "absorbing"])
def test_prior(kind, uniforms):
    process, chain = build(kind, LOG_LINEAR)
    states = process.prior(uniforms(DRAWS))
    assert states.dtype == torch.int64
    assert fits(states, process.prior_probs("cpu"))
    assert fits(states, chain.between(0, STEPS)[0])  # where alpha ends at 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("s, t", [(0, 1), (3, 4), (2, 7), (7, 8), (0, 8)])
def test_steps_follow_the_posterior(kind, s, t, uniforms):
    """x_0 and x_t alike, different, and x_t the last state, which is the mask if there is one."""
    process, chain = build(kind, schedule_named("cosine"))
    posterior = chain.posterior(s, t)
    for x_t, x_0 in [(1, 1), (1, 3), (chain.states - 1, 2)]:
        if np.isnan(posterior[x_t, x_0]).any():
            continue  # a token that is another one, or any at the end: absorbing has none
        states = process.step(
            torch.full((DRAWS,), x_t),
            torch.full((DRAWS,), x_0),
            when(s, DRAWS),
            when(t, DRAWS),
            uniforms(DRAWS, 2),
        )
        assert fits(states, posterior[x_t, x_0])


def test_steps_of_one_batch_are_independent(uniforms):
    """Two tokens of one sentence, with one pair of numbers each, go their own ways."""
    process, chain = build("uniform", LOG_LINEAR)
    x_t, x_0 = torch.tensor([0, 1]).repeat(DRAWS), torch.tensor([3, 3]).repeat(DRAWS)
    times = when(3, 2 * DRAWS), when(5, 2 * DRAWS)
    states = process.step(x_t, x_0, *times, uniforms(2 * DRAWS, 2)).reshape(DRAWS, 2)
    posterior = chain.posterior(3, 5)
    assert fits(states @ torch.tensor([TYPES, 1]), np.kron(posterior[0, 3], posterior[1, 3]))


# ancestral sampling of a known model of two tokens of three types


def sample(process, chain, indices, uniforms):
    """x_0 (DRAWS, 2) as the plug-in draws it: x~ from the predictor, then a step towards it."""
    x = process.prior(uniforms(2 * DRAWS))
    for s, t in zip(indices[-2::-1], indices[:0:-1]):
        pairs = x.reshape(DRAWS, 2)
        p = predictors(chain, t)[:, pairs[:, 0], pairs[:, 1]].transpose(1, 0, 2).reshape(-1, 3)
        guess = draw(sharpen(log(p), 1), uniforms(2 * DRAWS))
        times = when(s, 2 * DRAWS, chain.steps), when(t, 2 * DRAWS, chain.steps)
        x = process.step(x, guess, *times, uniforms(2 * DRAWS, 2))
    return x.reshape(DRAWS, 2)


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("kind", ["uniform", "absorbing"])
def test_samples_follow_the_law_of_their_steps(kind, count, uniforms):
    process, chain = build(kind, schedule_named("cosine"), types=3)
    indices = (decoding_times(STEPS, count) * STEPS).round().astype(int)
    states = sample(process, chain, indices, uniforms) @ torch.tensor([3, 1])
    own = ancestral_law(process, chain, indices).ravel()
    assert own.sum() == pytest.approx(1)
    assert fits(states, own)
    assert not fits(states, DATA.ravel())  # so few steps are not the data's law


@pytest.mark.parametrize("count", [1, 2, 4, 8, 16])
def test_the_absorbing_law_is_that_of_the_data_but_for_coincidences(count):
    """One step out of K: with probability 1 / K both appear at once, and then independently."""
    process, chain = build("absorbing", LOG_LINEAR, types=3, steps=16)
    independent = np.outer(DATA.sum(1), DATA.sum(0))
    expected = (1 - 1 / count) * DATA + independent / count
    np.testing.assert_allclose(ancestral_law(process, chain, range(0, 17, 16 // count)), expected)


@pytest.mark.parametrize("kind", ["uniform", "absorbing"])
def test_many_steps_give_the_law_of_the_data(kind, uniforms):
    """The distance in total variation falls with K, and then samples are as good as data."""
    distances = []
    for count in (1, 4, 16, 64):
        process, chain = build(kind, schedule_named("log_linear"), types=3, steps=count)
        distances.append(abs(ancestral_law(process, chain, range(count + 1)) - DATA).sum() / 2)
    assert distances == sorted(distances, reverse=True)
    assert distances[-1] < 0.01 < 0.3 < distances[0]
    states = sample(process, chain, range(65), uniforms) @ torch.tensor([3, 1])
    assert fits(states, DATA.ravel())
