"""Coefficients under F, the search, and the paper's tables."""

import math
import subprocess
import sys

import numpy as np
import pytest

from difformer_plugin.diffusion.gaussian.process import GaussianProcess
from difformer_plugin.diffusion.gaussian.published import (
    DGS_MAX,
    LATENT_DIM,
    TABLE_2,
    TABLE_14,
    TABLE_17,
    TABLE_19,
)
from difformer_plugin.diffusion.gaussian.rescaling import (
    NoiseSeries,
    default_stride,
    dgs,
    search_factor,
)
from difformer_plugin.diffusion.parameters import ParameterError
from difformer_plugin.diffusion.schedules import GAUSSIAN, alpha_bar_series, schedule_names

# coefficients


@pytest.mark.parametrize("schedule", schedule_names(GAUSSIAN))
@pytest.mark.parametrize("vp_rf", [False, True])
def test_coefficients_are_those_of_the_process_in_training(schedule, vp_rf):
    series = NoiseSeries(schedule, 500, vp_rf, stride=7)
    process = GaussianProcess.create(schedule, 500, 3.5, vp_rf)
    alpha_bar, beta_bar = series.coefficients(3.5)
    t = np.arange(0, 500, 7)
    np.testing.assert_array_equal(series.timesteps, t)
    np.testing.assert_allclose(alpha_bar, process.alphas_cumprod[t])
    np.testing.assert_allclose(beta_bar, process.noise_scale**2 * (1 - process.alphas_cumprod[t]))


def test_both_forms_divide_the_signal_to_noise_ratio_by_the_square_of_f():
    alpha_bar = alpha_bar_series("sqrt", 2000)[::32]
    snr = alpha_bar / (1 - alpha_bar)
    plain, preserving = (NoiseSeries("sqrt", vp_rf=vp_rf).coefficients(4.0) for vp_rf in (0, 1))
    np.testing.assert_allclose(plain[0] / plain[1], snr / 16)
    # rescaled before it is discretised: the first step, where both series begin anew, differs
    ratio = preserving[0] / preserving[1] / (snr / 16)
    assert 1 < ratio[0] < 1.2 and ratio.std() < 0.01
    np.testing.assert_allclose(preserving[0] + preserving[1], 1)


def test_time_steps_are_one_in_32_of_2000():
    np.testing.assert_array_equal(NoiseSeries().timesteps, np.arange(0, 2000, 32))
    assert [default_stride(steps) for steps in (2, 20, 1000, 2000, 4000)] == [1, 1, 16, 32, 64]


@pytest.mark.parametrize(
    "values, message",
    [
        ({"schedule": "quadratic"}, "noise_schedule must be one of linear, .*, not 'quadratic'"),
        ({"diffusion_steps": 1}, "at least 2"),
        ({"stride": 0}, "between 1 and 1999, not 0"),
        ({"stride": 2000}, "between 1 and 1999, not 2000"),
    ],
)
def test_series_that_cannot_be_are_refused(values, message):
    with pytest.raises(ParameterError, match=message):
        NoiseSeries(**values)


@pytest.mark.parametrize("factor", [0.0, -1.0, 1e200, math.nan, math.inf])
def test_factors_that_cannot_be_are_refused(factor):
    with pytest.raises(ParameterError, match="must be above 0"):
        NoiseSeries().coefficients(factor)


# search


def algorithm_1(score, max_dgs, step):
    """The paper's, line by line."""
    factor = 1.0
    while True:
        if score(factor) <= max_dgs:
            return factor
        factor += step


@pytest.mark.parametrize("step", [0.1, 0.5, 3.0])
@pytest.mark.parametrize("max_dgs", [0.7, 0.51, 0.25, 0.031])
def test_search_finds_what_algorithm_1_finds(step, max_dgs):
    asked = []

    def score(factor):
        asked.append(factor)
        return 1 / (1 + 0.7 * factor)

    factor, found = search_factor(score, max_dgs, step)
    assert factor == pytest.approx(algorithm_1(lambda f: 1 / (1 + 0.7 * f), max_dgs, step))
    assert found == score(factor) <= max_dgs
    assert len(asked) <= 7 + 2 * math.log2(1 + factor / step)


def test_search_without_steps_meets_the_threshold():
    factor, found = search_factor(lambda f: 1 / f, 0.15, 0)
    assert factor == pytest.approx(1 / 0.15, rel=2e-3) and found <= 0.15


def test_no_rescaling_where_none_is_needed():
    assert search_factor(lambda f: 0.4 / f, 0.4) == (1.0, 0.4)


def test_thresholds_out_of_reach_are_an_error():
    with pytest.raises(ParameterError, match="max_dgs must be at least 0.101, .*, not 0.05"):
        search_factor(lambda f: 0.1 + 1 / f, 0.05)


@pytest.mark.parametrize("step", [0.0, 0.5, 3.0])
def test_no_greater_factor_than_the_largest_is_searched_for(step):
    asked = []

    def score(factor):
        asked.append(factor)
        return 1 / factor

    with pytest.raises(ParameterError, match="max_dgs must be at least 0.1"):
        search_factor(score, 1 / 15, step, largest=10.0)
    assert max(asked) == 10
    factor, found = search_factor(score, 1 / 9.9, step, largest=10.0)
    assert factor == pytest.approx(9.9 if step == 0 else 10, rel=2e-3) and found <= 1 / 9.9


def test_the_largest_factor_that_is_searched_for_lies_on_the_grid():
    asked = []
    factor, _ = search_factor(lambda f: asked.append(f) or 1 / f, 1 / 8.5, 2.0, largest=10.0)
    assert factor == 9 and set(asked) <= {1, 3, 5, 7, 9}


@pytest.mark.parametrize("max_dgs", [0.0, -0.1, 1.5, math.nan])
def test_thresholds_that_are_no_share_are_refused(max_dgs):
    with pytest.raises(ParameterError, match="max_dgs must lie in"):
        search_factor(lambda f: 1 / f, max_dgs)


@pytest.mark.parametrize("step", [-0.5, 1e-300, 1e300, math.nan, math.inf])
def test_steps_that_lead_nowhere_are_refused(step):
    with pytest.raises(ParameterError, match="search_step"):
        search_factor(lambda f: 1 / f, 0.1, step)


# the paper


def search(max_dgs, schedule="sqrt", vocab_size=10_000, latent_dim=LATENT_DIM, vp_rf=False):
    series = NoiseSeries(schedule, vp_rf=vp_rf)
    return search_factor(lambda f: dgs(series, f, vocab_size, latent_dim), max_dgs)[0]


@pytest.mark.parametrize(
    "schedule, vocab_size",
    [pytest.param(*row, marks=[pytest.mark.slow] * (row[1] != 20_000)) for row in TABLE_19],
)
def test_table_19(schedule, vocab_size):
    """Every entry within one step of the search, or 10 %."""
    for max_dgs, paper in zip(DGS_MAX, TABLE_19[schedule, vocab_size]):
        factor = search(max_dgs, schedule, vocab_size)
        if paper is None:
            assert factor == 1.0
        else:
            assert abs(factor - paper) <= max(0.5, 0.1 * paper)


@pytest.mark.parametrize("schedule, paper", TABLE_2.items())
def test_table_2(schedule, paper):
    assert abs(dgs(NoiseSeries(schedule), 1.0, 10_000, LATENT_DIM) - paper) < 0.01


@pytest.mark.parametrize("latent_dim, paper", TABLE_14.items())
def test_table_14(latent_dim, paper):
    assert abs(search(0.15, latent_dim=latent_dim) - paper) <= 0.5


@pytest.mark.parametrize("max_dgs, paper", TABLE_17.items())
def test_table_17(max_dgs, paper):
    assert abs(search(max_dgs, vp_rf=True) - paper) <= 0.5


def test_the_mathematics_needs_neither_torch_nor_fairseq():
    code = (
        "import sys; from difformer_plugin.diffusion.gaussian.rescaling import NoiseSeries, dgs; "
        "dgs(NoiseSeries(), 4.0, 100, 16); "
        "sys.exit(bool({'torch', 'fairseq'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
