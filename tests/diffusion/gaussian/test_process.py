"""The Gaussian process against Bayes' rule, its formulas and Monte Carlo."""

import numpy as np
import pytest
import torch

from difformer_plugin.diffusion.gaussian.process import (
    GaussianProcess,
    check_factor,
    spaced_timesteps,
)
from difformer_plugin.diffusion.schedules import SCHEDULES, alphas_cumprod
from difformer_plugin.errors import UserError

FORMS = {"plain": (1.0, False), "eq. 3": (4.0, False), "eq. 8": (4.0, True)}


def process(schedule="sqrt", form="eq. 3", steps=200):
    factor, vp_rf = FORMS[form]
    return GaussianProcess.create(schedule, steps, factor, vp_rf)


def variances(form, alpha_bar):
    """The variance of q(z_t | z_0), by the form: F^2 beta-bar, or beta-bar as it is."""
    return (1 - alpha_bar) * (16 if form == "eq. 3" else 1)


# the forward process


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("schedule", ["sqrt", "linear"])
def test_q_sample_is_its_formula(form, schedule):
    own = process(schedule, form)
    alpha_bar = alphas_cumprod(schedule, 200, 4.0 if form == "eq. 8" else 1.0)
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


@pytest.mark.parametrize("form", FORMS)
def test_the_prior_has_the_variance_of_the_last_step(form):
    own, noise = process(form=form), torch.randn(2, 3, 4)
    last = own.q_sample(torch.zeros(2, 3, 4), torch.tensor([199, 199]), noise)
    torch.testing.assert_close(own.prior(noise), last, rtol=1e-3, atol=0)


# the posterior


def bayes(alpha_s, alpha_t, z_0, z_t, scale=1.0):
    """Mean and variance of q(z_s | z_t, z_0), as the product of q(z_t | z_s) and q(z_s | z_0)."""
    ratio = alpha_t / alpha_s
    prior_mean, prior_variance = alpha_s**0.5 * z_0, scale**2 * (1 - alpha_s)
    # as a function of z_s, N(z_t; sqrt(ratio) z_s, v) is N(z_s; z_t / sqrt(ratio), v / ratio)
    seen_mean, seen_variance = z_t / ratio**0.5, scale**2 * (1 - ratio) / ratio
    precision = 1 / prior_variance + 1 / seen_variance
    return (prior_mean / prior_variance + seen_mean / seen_variance) / precision, 1 / precision


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("steps", [200, 20, 7])
def test_posterior_is_bayes_rule(schedule, form, steps):
    own = process(schedule, form).spaced(steps)
    z_0, z_t = torch.randn(2, 1, 2, 3, dtype=torch.float64)
    zero, one = torch.zeros_like(z_0), torch.ones_like(z_0)
    for k in range(1, steps):
        mean, variance = bayes(*own.alphas_cumprod[k - 1 : k + 1], z_0, z_t, own.noise_scale)
        drawn = own.step(z_t, z_0, k, zero)
        torch.testing.assert_close(drawn, mean, rtol=1e-6, atol=1e-9)
        deviation = own.step(z_t, z_0, k, one) - drawn
        torch.testing.assert_close(deviation, variance**0.5 * one, rtol=1e-6, atol=1e-9)


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


@pytest.mark.parametrize("form", FORMS)
def test_posterior_of_the_true_z_0_has_the_forward_marginal(form):
    """z_t from z_0, then z_s from the posterior, is distributed as z_s from z_0."""
    count, z_0 = 200_000, 1.7
    own = process("sqrt", form).spaced(10)
    random = torch.Generator().manual_seed(1)
    noise = torch.randn(2, 1, count, 1, generator=random, dtype=torch.float64)
    truth = torch.full((1, count, 1), z_0, dtype=torch.float64)
    for k in (1, 4, 9):
        z_t = own.q_sample(truth, torch.tensor([k]), noise[0])
        z_s = own.step(z_t, truth, k, noise[1])
        alpha_bar = own.alphas_cumprod[k - 1]
        variance = variances(form, alpha_bar)
        error = (z_s.mean() - alpha_bar**0.5 * z_0).item() / (variance / count) ** 0.5
        assert abs(error) < 4
        error = (z_s.var().item() / variance - 1) / (2 / count) ** 0.5
        assert abs(error) < 4


@pytest.mark.parametrize("form", FORMS)
def test_the_first_step_arrives_at_the_prediction(form):
    """lambda = 0 and xi = 1; its variance of 0 is clipped to that of the second step."""
    own = process(form=form).spaced(20)
    z_t, z_0, noise = torch.randn(3, 2, 3, 4, dtype=torch.float64)
    mean = own.step(z_t, z_0, 0, torch.zeros_like(noise))
    torch.testing.assert_close(mean, z_0)
    _, variance = bayes(*own.alphas_cumprod[:2], z_0, z_t, own.noise_scale)
    torch.testing.assert_close(own.step(z_t, z_0, 0, noise) - mean, variance**0.5 * noise)


def test_a_single_step_arrives_at_the_prediction_without_noise():
    own = process().spaced(1)
    z_t, z_0, noise = torch.randn(3, 2, 3, 4)
    torch.testing.assert_close(own.step(z_t, z_0, 0, noise), z_0)


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
    with pytest.raises(UserError, match="--decoding-steps.*2000"):
        spaced_timesteps(2000, count)


def test_spaced_process_is_the_whole_one_at_its_steps():
    whole = process()
    own = whole.spaced(20)
    assert len(own) == 20 and own.noise_scale == whole.noise_scale
    assert (own.alphas_cumprod == whole.alphas_cumprod[own.timesteps]).all()


@pytest.mark.parametrize("factor", [0, -1, float("nan"), float("inf")])
def test_a_factor_that_cannot_be(factor):
    with pytest.raises(UserError, match="--rescaling-factor"):
        GaussianProcess.create("sqrt", 10, factor)
    with pytest.raises(UserError, match="--other"):
        check_factor(factor, "--other")
