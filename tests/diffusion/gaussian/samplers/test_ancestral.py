"""Ancestral sampling of embeddings against Bayes' rule and Monte Carlo."""

import pytest
import torch
from gaussian_cases import FORMS, process, variances

from difformer_plugin.diffusion.gaussian.samplers.ancestral import Ancestral
from difformer_plugin.diffusion.schedules import GAUSSIAN, schedule_names


def draw(process, z_t, z_0_hat, k, noise):
    """z_s from z_t, s being the step before the k-th of the process."""
    return Ancestral(process).step(z_t, z_0_hat, k, lambda: noise)


@pytest.mark.parametrize("form", FORMS)
def test_the_prior_has_the_variance_of_the_last_step(form):
    own, noise = process(form=form), torch.randn(2, 3, 4)
    last = own.q_sample(torch.zeros(2, 3, 4), torch.tensor([199, 199]), noise)
    torch.testing.assert_close(Ancestral(own).prior(lambda: noise), last, rtol=1e-3, atol=0)


def bayes(alpha_s, alpha_t, z_0, z_t, scale=1.0):
    """Mean and variance of q(z_s | z_t, z_0), as the product of q(z_t | z_s) and q(z_s | z_0)."""
    ratio = alpha_t / alpha_s
    prior_mean, prior_variance = alpha_s**0.5 * z_0, scale**2 * (1 - alpha_s)
    # as a function of z_s, N(z_t; sqrt(ratio) z_s, v) is N(z_s; z_t / sqrt(ratio), v / ratio)
    seen_mean, seen_variance = z_t / ratio**0.5, scale**2 * (1 - ratio) / ratio
    precision = 1 / prior_variance + 1 / seen_variance
    return (prior_mean / prior_variance + seen_mean / seen_variance) / precision, 1 / precision


@pytest.mark.parametrize("schedule", schedule_names(GAUSSIAN))
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("steps", [200, 20, 7])
def test_posterior_is_bayes_rule(schedule, form, steps):
    own = process(schedule, form).spaced(steps)
    z_0, z_t = torch.randn(2, 1, 2, 3, dtype=torch.float64)
    zero, one = torch.zeros_like(z_0), torch.ones_like(z_0)
    for k in range(1, steps):
        mean, variance = bayes(*own.alphas_cumprod[k - 1 : k + 1], z_0, z_t, own.noise_scale)
        drawn = draw(own, z_t, z_0, k, zero)
        torch.testing.assert_close(drawn, mean, rtol=1e-6, atol=1e-9)
        deviation = draw(own, z_t, z_0, k, one) - drawn
        torch.testing.assert_close(deviation, variance**0.5 * one, rtol=1e-6, atol=1e-9)


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
        z_s = draw(own, z_t, truth, k, noise[1])
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
    mean = draw(own, z_t, z_0, 0, torch.zeros_like(noise))
    torch.testing.assert_close(mean, z_0)
    _, variance = bayes(*own.alphas_cumprod[:2], z_0, z_t, own.noise_scale)
    torch.testing.assert_close(draw(own, z_t, z_0, 0, noise) - mean, variance**0.5 * noise)


def test_a_single_step_arrives_at_the_prediction_without_noise():
    own = process().spaced(1)
    z_t, z_0, noise = torch.randn(3, 2, 3, 4)
    torch.testing.assert_close(draw(own, z_t, z_0, 0, noise), z_0)
