"""The Gaussian forward process against its formulas."""

import numpy as np
import pytest
import torch
from gaussian_cases import FORMS, process, variances

from difformer_plugin.diffusion.gaussian.process import (
    GaussianProcess,
    check_factor,
    spaced_timesteps,
)
from difformer_plugin.diffusion.parameters import ParameterError
from difformer_plugin.diffusion.schedules import alpha_bar_series
from difformer_plugin.errors import UserError, translated

# the forward process


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("schedule", ["sqrt", "linear"])
def test_q_sample_is_its_formula(form, schedule):
    own = process(schedule, form)
    alpha_bar = alpha_bar_series(schedule, 200, 4.0 if form == "eq. 8" else 1.0)
    t = torch.tensor([0, 7, 120, 199])
    z_0, noise = torch.randn(2, 4, 3, 5, dtype=torch.float64)
    z_t = own.q_sample(z_0, t, noise)
    for row, step in enumerate(t.tolist()):
        deviation = variances(form, alpha_bar[step]) ** 0.5
        expected = alpha_bar[step] ** 0.5 * z_0[row] + deviation * noise[row]
        torch.testing.assert_close(z_t[row], expected)


def test_the_two_forms_have_the_same_signal_to_noise_ratio():
    """Eq. 8 is Eq. 3 divided by its total variance: both divide the SNR by F^2."""
    alpha_bar = {form: process("linear", form, 1000).alphas_cumprod for form in FORMS}
    snr = {form: a / variances(form, a) for form, a in alpha_bar.items()}
    inner = slice(100, 990)  # discretisation divides by alpha-bar(0), which matters at the start
    assert snr["eq. 3"][inner] == pytest.approx(snr["plain"][inner] / 16)
    assert snr["eq. 8"][inner] == pytest.approx(snr["eq. 3"][inner], rel=2e-2)


def test_q_sample_keeps_the_precision_of_the_latents():
    z_0 = torch.randn(2, 3, 4, dtype=torch.float16)
    z_t = process().q_sample(z_0, torch.tensor([3, 5]), torch.randn(2, 3, 4, dtype=torch.float16))
    assert z_t.dtype == torch.float16


# the posterior


def test_posterior_is_the_appendix_at_neighbouring_steps():
    """App. B, with alpha_t and beta_t of neighbouring steps."""
    own = process("cosine", "plain")
    xi, lam, log_variance = own.posterior_coefficients
    for t in range(1, 200):
        alpha_bar, before = own.alphas_cumprod[t], own.alphas_cumprod[t - 1]
        alpha = alpha_bar / before
        assert xi[t] == pytest.approx(np.sqrt(before) * (1 - alpha) / (1 - alpha_bar))
        assert lam[t] == pytest.approx(np.sqrt(alpha) * (1 - before) / (1 - alpha_bar))
        assert np.exp(log_variance[t]) == pytest.approx(
            (1 - before) / (1 - alpha_bar) * (1 - alpha)
        )


# spaced steps


@pytest.mark.parametrize(
    "total, count, expected",
    [(2000, 1, [1999]), (7, 7, list(range(7))), (2000, 2, [0, 1999]), (9, 3, [0, 4, 8])],
)
def test_spaced_timesteps(total, count, expected):
    assert spaced_timesteps(total, count).tolist() == expected


@pytest.mark.parametrize("total, count", [(2000, 20), (1000, 17), (50, 49)])
def test_spaced_timesteps_are_even(total, count):
    """From 0 to T - 1, each the nearest integer to its place, up to round-off about halves."""
    chosen = spaced_timesteps(total, count)
    assert chosen[0] == 0 and chosen[-1] == total - 1 and len(set(chosen)) == count
    assert np.abs(chosen - np.linspace(0, total - 1, count)).max() <= 0.5 + 1e-6


@pytest.mark.parametrize("count", [0, -1, 2001])
def test_a_number_of_steps_that_cannot_be(count):
    with pytest.raises(ParameterError, match="decoding_steps.*2000"):
        spaced_timesteps(2000, count)


def test_spaced_process_is_the_whole_one_at_its_steps():
    whole = process()
    own = whole.spaced(20)
    assert len(own) == 20 and own.noise_scale == whole.noise_scale
    assert (own.alphas_cumprod == whole.alphas_cumprod[own.timesteps]).all()


@pytest.mark.parametrize("factor", [0, -1, float("nan"), float("inf")])
def test_a_factor_that_cannot_be(factor):
    with pytest.raises(ParameterError, match="rescaling_factor must be above 0"):
        GaussianProcess.create("sqrt", 10, factor)
    with (
        pytest.raises(UserError, match="--other must be above 0"),
        translated(rescaling_factor="--other"),
    ):
        check_factor(factor)
