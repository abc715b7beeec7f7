"""Schedules of categorical diffusion: their ends, derivatives and rates, against formulas."""

import math

import numpy as np
import pytest
import torch

from difformer_plugin.diffusion.categorical.information import uniform_mutual_information
from difformer_plugin.diffusion.parameters import ParameterError
from difformer_plugin.diffusion.schedules import (
    CATEGORICAL,
    GAUSSIAN,
    SCHEDULES,
    Floored,
    Formula,
    Tabulated,
    get_schedule,
    schedule_names,
)

NAMES = schedule_names(CATEGORICAL)
COSINE = SCHEDULES["cosine"].normalised()
LINEAR = SCHEDULES["linear"].normalised()
LOG_LINEAR = SCHEDULES["log_linear"].normalised()
UNIGRAM = torch.tensor([0.5, 0.2, 0.15, 0.1, 0.05], dtype=torch.float64)
TIMES = torch.linspace(0, 1, 998, dtype=torch.float64)
BETWEEN = TIMES[:-1] + 0.3 / 997  # none is a multiple of 1/256, a corner of what is tabulated


@pytest.fixture(params=NAMES)
def schedule(request):
    formula = SCHEDULES[request.param]
    if formula.of_information:
        return uniform_mutual_information(UNIGRAM)
    return formula.normalised()


def test_alpha_falls_from_one_to_nothing(schedule):
    alpha = schedule.alpha_bar(TIMES)
    assert alpha.dtype == torch.float64
    assert (alpha[0], alpha[-1]) == (1, 0)
    assert (alpha.diff() < 0).all()


def test_slope_is_the_derivative(schedule):
    h = 1e-7
    difference = (schedule.alpha_bar(BETWEEN + h) - schedule.alpha_bar(BETWEEN - h)) / (2 * h)
    torch.testing.assert_close(schedule.derivative(BETWEEN), difference, rtol=1e-6, atol=1e-8)
    t = BETWEEN.clone().requires_grad_()
    (derivative,) = torch.autograd.grad(schedule.alpha_bar(t).sum(), t)
    torch.testing.assert_close(schedule.derivative(BETWEEN), derivative)
    assert (schedule.derivative(TIMES) <= 0).all()


def test_hazard_is_the_chance_to_come_back_in_a_short_time(schedule):
    """(alpha_s - alpha_t) / (1 - alpha_t) / (t - s) for s just before t."""
    h = 1e-7
    t = BETWEEN[10:]
    before, after = schedule.alpha_bar(t - h), schedule.alpha_bar(t)
    rate = (before - after) / (1 - after) / h
    torch.testing.assert_close(schedule.unmasking_rate(t), rate, rtol=1e-4, atol=1e-6)


def test_log_linear_masks_with_one_over_the_steps_that_are_left():
    steps = 50
    alpha = LOG_LINEAR.alpha_bar(torch.arange(steps + 1, dtype=torch.float64) / steps)
    t = torch.arange(1, steps + 1, dtype=torch.float64)
    torch.testing.assert_close(1 - alpha[1:] / alpha[:-1], 1 / (steps - t + 1))


def test_cosine_is_that_of_nichol_and_dhariwal():
    def f(t):
        return math.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2

    alpha = COSINE.alpha_bar(TIMES).tolist()
    assert alpha == pytest.approx([f(t) / f(0) for t in TIMES.tolist()], abs=1e-15)


def test_linear_is_the_limit_of_products_of_one_minus_beta():
    """Ho et al.: beta from 1e-4 to 0.02 in 1,000 steps, and so from 0.1 / T to 20 / T in T."""

    def gap(steps):
        beta = np.linspace(0.1, 20, steps) / steps
        product = np.cumprod(1 - beta)
        least = product[-1]  # the schedule is shifted by what is left, and scaled
        alpha = LINEAR.alpha_bar(torch.arange(1, steps + 1, dtype=torch.float64) / steps).numpy()
        return abs((product - least) / (1 - least) - alpha).max()

    assert gap(1000) < 0.01
    assert gap(100_000) < 1e-4
    assert gap(10_000) / gap(20_000) == pytest.approx(2, rel=0.01)


def test_floored_ends_at_its_floor(schedule):
    floored = Floored(schedule, 0.01)
    alpha = floored.alpha_bar(TIMES)
    assert alpha[[0, -1]].tolist() == pytest.approx([1, 0.01], rel=1e-15)
    torch.testing.assert_close((alpha - 0.01) / 0.99, schedule.alpha_bar(TIMES))
    t = BETWEEN.clone().requires_grad_()
    (derivative,) = torch.autograd.grad(floored.alpha_bar(t).sum(), t)
    torch.testing.assert_close(floored.derivative(BETWEEN), derivative)
    torch.testing.assert_close(floored.unmasking_rate(BETWEEN), schedule.unmasking_rate(BETWEEN))


def test_tabulated_is_straight_between_its_values():
    values = np.array([1, 0.7, 0.1, 0])
    alpha = Tabulated(torch.tensor(values)).alpha_bar(TIMES)
    expected = np.interp(TIMES.numpy(), [0, 1 / 3, 2 / 3, 1], values)
    torch.testing.assert_close(alpha, torch.tensor(expected))


# the registry


def test_which_schedules_there_are():
    assert schedule_names(GAUSSIAN) == ["linear", "cosine", "sqrt", "edm", "cdcd"]
    assert NAMES == ["linear", "cosine", "log_linear", "mutual_information"]


@pytest.mark.parametrize("name", NAMES)
def test_schedules_have_names(name):
    assert get_schedule(name, CATEGORICAL) is SCHEDULES[name]


def test_the_schedules_of_the_other_kind_are_refused():
    message = "^noise_schedule must be one of linear, cosine, log_linear, .*, not 'sqrt'$"
    with pytest.raises(ParameterError, match=message):
        get_schedule("sqrt", CATEGORICAL)


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_formula_is_the_same_on_floats_and_tensors(name):
    t = TIMES[1:-1]
    on_floats = [SCHEDULES[name].alpha_bar(x) for x in t.tolist()]
    expected = torch.tensor(on_floats, dtype=torch.float64)
    torch.testing.assert_close(SCHEDULES[name].alpha_bar(t), expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_needs_nothing_but_its_function(name):
    """Without a closed form, autograd differentiates it; also where no gradients are recorded."""
    formula = SCHEDULES[name]
    alone, t = Formula(formula.function, formula.kinds), TIMES[1:-1]
    torch.testing.assert_close(alone.derivative(t), formula.derivative(t))
    with torch.inference_mode():
        found = alone.normalised().derivative(TIMES[1:-1])
    torch.testing.assert_close(found, formula.normalised().derivative(t))
    assert not alone.derivative(t).requires_grad
