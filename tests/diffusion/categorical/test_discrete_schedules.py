"""Schedules of discrete diffusion: their ends, slopes and information, by formulas and counting."""

import math

import numpy as np
import pytest
import torch
from enumeration import STEPS, UNIGRAM, build, entropy, schedule_named

from difformer_plugin.diffusion.categorical.schedules import (
    NAMES,
    Cosine,
    Floored,
    Linear,
    LogLinear,
    Tabulated,
    check_schedule,
    decoding_times,
    mutual_information,
)
from difformer_plugin.errors import UserError

TIMES = torch.linspace(0, 1, 998, dtype=torch.float64)
BETWEEN = TIMES[:-1] + 0.3 / 997  # none is a multiple of 1/256, a corner of what is tabulated


@pytest.fixture(params=NAMES)
def schedule(request):
    return schedule_named(request.param)


def information(kind, schedule, step, steps=STEPS, unigram=UNIGRAM):
    """I(x_t; x_0) in nats from the joint distribution of both."""
    _, chain = build(kind, schedule, len(unigram), steps)
    joint = unigram[:, None] * chain.between(0, step)[: len(unigram)]
    return entropy(joint.sum(0)) + entropy(unigram) - entropy(joint)


def test_alpha_falls_from_one_to_nothing(schedule):
    alpha = schedule.alpha(TIMES)
    assert alpha.dtype == torch.float64
    assert (alpha[0], alpha[-1]) == (1, 0)
    assert (alpha.diff() < 0).all()


def test_slope_is_the_derivative(schedule):
    h = 1e-7
    difference = (schedule.alpha(BETWEEN + h) - schedule.alpha(BETWEEN - h)) / (2 * h)
    torch.testing.assert_close(schedule.slope(BETWEEN), difference, rtol=1e-6, atol=1e-8)
    t = BETWEEN.clone().requires_grad_()
    (derivative,) = torch.autograd.grad(schedule.alpha(t).sum(), t)
    torch.testing.assert_close(schedule.slope(BETWEEN), derivative)
    assert (schedule.slope(TIMES) <= 0).all()


def test_hazard_is_the_chance_to_come_back_in_a_short_time(schedule):
    """(alpha_s - alpha_t) / (1 - alpha_t) / (t - s) for s just before t."""
    h = 1e-7
    t = BETWEEN[10:]
    before, after = schedule.alpha(t - h), schedule.alpha(t)
    rate = (before - after) / (1 - after) / h
    torch.testing.assert_close(schedule.hazard(t), rate, rtol=1e-4, atol=1e-6)


def test_log_linear_masks_with_one_over_the_steps_that_are_left():
    steps = 50
    alpha = LogLinear().alpha(torch.arange(steps + 1, dtype=torch.float64) / steps)
    t = torch.arange(1, steps + 1, dtype=torch.float64)
    torch.testing.assert_close(1 - alpha[1:] / alpha[:-1], 1 / (steps - t + 1))


def test_cosine_is_that_of_nichol_and_dhariwal():
    def f(t):
        return math.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2

    alpha = Cosine().alpha(TIMES).tolist()
    assert alpha == pytest.approx([f(t) / f(0) for t in TIMES.tolist()], abs=1e-15)


def test_linear_is_the_limit_of_products_of_one_minus_beta():
    """Ho et al.: beta from 1e-4 to 0.02 in 1,000 steps, and so from 0.1 / T to 20 / T in T."""

    def gap(steps):
        beta = np.linspace(0.1, 20, steps) / steps
        product = np.cumprod(1 - beta)
        least = product[-1]  # the schedule is shifted by what is left, and scaled
        alpha = Linear().alpha(torch.arange(1, steps + 1, dtype=torch.float64) / steps).numpy()
        return abs((product - least) / (1 - least) - alpha).max()

    assert gap(1000) < 0.01
    assert gap(100_000) < 1e-4
    assert gap(10_000) / gap(20_000) == pytest.approx(2, rel=0.01)


def test_floored_ends_at_its_floor(schedule):
    floored = Floored(schedule, 0.01)
    alpha = floored.alpha(TIMES)
    assert alpha[[0, -1]].tolist() == pytest.approx([1, 0.01], rel=1e-15)
    torch.testing.assert_close((alpha - 0.01) / 0.99, schedule.alpha(TIMES))
    t = BETWEEN.clone().requires_grad_()
    (derivative,) = torch.autograd.grad(floored.alpha(t).sum(), t)
    torch.testing.assert_close(floored.slope(BETWEEN), derivative)
    torch.testing.assert_close(floored.hazard(BETWEEN), schedule.hazard(BETWEEN))


def test_tabulated_is_straight_between_its_values():
    values = np.array([1, 0.7, 0.1, 0])
    alpha = Tabulated(torch.tensor(values)).alpha(TIMES)
    expected = np.interp(TIMES.numpy(), [0, 1 / 3, 2 / 3, 1], values)
    torch.testing.assert_close(alpha, torch.tensor(expected))


# mutual information


@pytest.mark.parametrize("unigram", [UNIGRAM, np.full(4, 0.25), np.array([0.999, 0.001, 0, 0])])
def test_uniform_information_falls_linearly(unigram):
    """I(x_t; x_0) = (1 - t) H(x_0) at all the tabulated times, a step each."""
    schedule, steps = mutual_information(torch.tensor(unigram)), 256
    assert len(schedule.values) == steps + 1
    for step in range(0, steps + 1, 16):
        expected = (1 - step / steps) * entropy(unigram)
        found = information("uniform", schedule, step, steps, unigram)
        assert found == pytest.approx(expected, rel=1e-9, abs=1e-13)


def test_uniform_information_is_near_its_line_between_the_tabulated_times():
    schedule, steps = mutual_information(torch.tensor(UNIGRAM)), 1000
    for step in [1, 3, 333, 501, 997, 999]:
        expected = (1 - step / steps) * entropy(UNIGRAM)
        found = information("uniform", schedule, step, steps)
        assert found == pytest.approx(expected, abs=2e-3 * entropy(UNIGRAM))


def test_absorbing_information_falls_linearly_with_log_linear():
    """As the paper says of 1 / (T - t + 1); another schedule does not do it."""
    for step in range(STEPS + 1):
        expected = (1 - step / STEPS) * entropy(UNIGRAM)
        found = information("absorbing", LogLinear(), step)
        assert found == pytest.approx(expected, rel=1e-12, abs=1e-13)
    assert information("absorbing", Cosine(), 4) < 0.999 * entropy(UNIGRAM) / 2


def test_other_schedules_do_not_take_the_information_evenly():
    assert information("uniform", LogLinear(), 4) < 0.9 * entropy(UNIGRAM) / 2


def test_a_large_vocabulary_is_tabulated_at_once():
    """Counts by Zipf's law: 40,000 types, of which most are as rare as many others."""
    counts = (1e5 / torch.arange(1, 40_001, dtype=torch.float64)).floor() + 1
    unigram = counts / counts.sum()
    values = mutual_information(unigram).values
    assert (values[0], values[-1]) == (1, 0)
    assert (values.diff() < 0).all()
    for step in (1, 100, 250):
        other = (1 - values[step]) / len(unigram)
        conditional = -torch.special.xlogy(values[step] + other, values[step] + other)
        conditional -= (len(unigram) - 1) * other * other.log()
        found = torch.special.entr(values[step] * unigram + other).sum() - conditional
        assert found.item() == pytest.approx((1 - step / 256) * entropy(unigram.numpy()), rel=1e-9)


# times of decoding


@pytest.mark.parametrize("steps", [1, 2, 7, 8, 20, 50, 333])
def test_decoding_times_are_steps_of_the_model_spread_evenly(steps):
    for count in range(1, steps + 1):
        times = decoding_times(steps, count)
        assert len(times) == count + 1
        assert (times[0], times[-1]) == (0, 1)
        index = times * steps
        assert abs(index - index.round()).max() < 1e-9
        assert (np.diff(index.round()) >= 1).all()
        assert abs(times - np.linspace(0, 1, count + 1)).max() <= 0.5 / steps + 1e-12


def test_as_many_decoding_steps_as_diffusion_steps_are_all_of_them():
    assert decoding_times(STEPS, STEPS).tolist() == [i / STEPS for i in range(STEPS + 1)]
    assert decoding_times(STEPS, 4).tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert decoding_times(STEPS, 1).tolist() == [0, 1]


def test_decoding_times_in_continuous_time():
    for count in [1, 3, 10, 2000]:
        expected = [i / count for i in range(count + 1)]
        assert decoding_times(None, count).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("count", [0, 9, -1])
def test_decoding_steps_that_are_not_there_are_refused(count):
    with pytest.raises(UserError, match=f"--decoding-steps .*1 and the model's 8 .*{count}"):
        decoding_times(STEPS, count)


@pytest.mark.parametrize("name", NAMES)
def test_schedules_have_names(name):
    check_schedule(name)


def test_the_schedules_of_the_other_family_are_refused():
    with pytest.raises(UserError, match="--noise-schedule sqrt: .*linear, cosine, log_linear"):
        check_schedule("sqrt")
