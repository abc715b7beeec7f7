"""Noise schedules against their formulas, and Eq. 8."""

import math

import numpy as np
import pytest

from difformer_plugin.diffusion.parameters import ParameterError
from difformer_plugin.diffusion.schedules import (
    GAUSSIAN,
    alpha_bar_series,
    discretise,
    get_schedule,
    rescale_variance_preserving,
    schedule_names,
)

NAMES = schedule_names(GAUSSIAN)
TIMES = np.linspace(0, 1, 41)


def integrated_linear(t):
    """exp(-integral of beta), beta going from 0.1 to 20 (Song et al., 2020b), by midpoints."""
    midpoints = (np.arange(100) + 0.5) / 100 * t
    return math.exp(-t * np.mean(0.1 + midpoints * (20 - 0.1)))


def karras(sigma_max, sigma_min):
    """alpha-bar of unit signal plus sigma, Karras et al. (2022), Eq. 5 read from its other end."""

    def alpha_bar(t):
        i = 1 - t  # they count from sigma_max down
        root = np.power(sigma_max, 1 / 7) + i * (
            np.power(sigma_min, 1 / 7) - np.power(sigma_max, 1 / 7)
        )
        snr = np.power(root, 7) ** -2.0
        return snr / (1 + snr)

    return alpha_bar


FORMULAS = {
    "linear": integrated_linear,
    "cosine": lambda t: (1 + math.cos((t + 0.008) / 1.008 * math.pi)) / 2,
    "sqrt": lambda t: 1 - np.power(t + 1e-4, 0.5),
    "edm": karras(80.0, 0.002),
    "cdcd": karras(300.0, 1.0),
}


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("steps", [2, 2000, 10_000, 12_000])
def test_alpha_bar_falls_and_stays_above_zero(name, steps):
    """Also where the formula of sqrt is zero or below, which it is from t = 0.9999 on."""
    series = alpha_bar_series(name, steps)
    assert len(series) == steps and (series > 0).all() and (np.diff(series) <= 0).all()


def test_every_schedule_has_a_formula_here():
    assert set(FORMULAS) == set(NAMES)


@pytest.mark.parametrize("name", FORMULAS)
def test_formula(name):
    ours = [get_schedule(name, GAUSSIAN).alpha_bar(t) for t in TIMES]
    assert ours == pytest.approx([FORMULAS[name](t) for t in TIMES], rel=1e-9, abs=1e-12)


def test_noise_levels_at_the_ends():
    sigma = {
        name: math.sqrt(1 / get_schedule(name, GAUSSIAN).alpha_bar(1.0) - 1)
        for name in ("edm", "cdcd")
    }
    assert sigma == pytest.approx({"edm": 80, "cdcd": 300})
    assert math.sqrt(1 / get_schedule("cdcd", GAUSSIAN).alpha_bar(0.0) - 1) == pytest.approx(1)


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(ParameterError) as error:
        get_schedule("quadratic", GAUSSIAN)
    assert all(name in str(error.value) for name in ["quadratic", *NAMES])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("factor", [1.0, 4.0])
def test_discretisation_is_the_product_of_clipped_ratios(name, factor):
    steps = 300
    continuous = FORMULAS[name]
    if factor != 1:
        signal = continuous
        continuous = lambda t: signal(t) / (signal(t) + factor**2 * (1 - signal(t)))  # noqa: E731
    product, expected = 1.0, []
    for i in range(steps):
        product *= 1 - min(0.999, 1 - continuous((i + 1) / steps) / continuous(i / steps))
        expected.append(product)
    ours = alpha_bar_series(name, steps, factor)
    assert ours == pytest.approx(np.array(expected), rel=1e-6)
    assert ours.dtype == np.float64 and ours.shape == (steps,)
    assert (np.diff(ours) < 0).all() and ours[-1] > 0 and ours[0] < 1


@pytest.mark.parametrize("name", NAMES)
def test_discretisation_telescopes_where_nothing_is_clipped(name):
    steps, alpha_bar = 200, get_schedule(name, GAUSSIAN).alpha_bar
    expected = [alpha_bar((i + 1) / steps) / alpha_bar(0) for i in range(steps - 1)]
    assert discretise(alpha_bar, steps)[:-1] == pytest.approx(np.array(expected), rel=1e-9)


@pytest.mark.parametrize("name", ["cosine", "sqrt"])
def test_beta_is_clipped_at_0_999(name):
    """These two end at (or below) alpha-bar = 0, a beta of 1 or more."""
    values = alpha_bar_series(name, 100)
    assert 1 - values[-1] / values[-2] == pytest.approx(0.999, abs=1e-12)
    assert 1 - values[-2] / values[-3] < 0.999


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("factor", [0.5, 1.0, 4.0, 12.5])
def test_equation_8(name, factor):
    alpha_bar = get_schedule(name, GAUSSIAN).alpha_bar
    rescaled = rescale_variance_preserving(alpha_bar, factor)
    for t in TIMES[1:-1]:
        a, b = alpha_bar(t), 1 - alpha_bar(t)
        beta_bar = factor**2 * b / (a + factor**2 * b)
        assert rescaled(t) + beta_bar == pytest.approx(1)
        assert rescaled(t) / (1 - rescaled(t)) == pytest.approx(a / b / factor**2, rel=1e-6)
