"""DPM-Solver++(2M): its first order is DDIM, and it converges at second order where DDIM does not.

For z_0 ~ N(0, s^2) the best prediction is linear in z_t, and the probability flow maps z_t to
z_t sqrt(v_s / v_t), v_t = alpha-bar_t s^2 + F^2 (1 - alpha-bar_t) being the variance of z_t.
"""

import numpy as np
import pytest
import torch

from difformer_plugin.diffusion.gaussian.process import GaussianProcess, ScalarProcess
from difformer_plugin.diffusion.gaussian.samplers.ddim import DDIM
from difformer_plugin.diffusion.gaussian.samplers.dpm_solver import DPMSolver

FACTOR, DEVIATION = 2.0, 0.5


def even_in_log_snr(steps):
    """A process of which logarithmic signal-to-noise ratios are evenly spaced, from 3 to -3."""
    alphas = 1 / (1 + np.exp(-2 * np.linspace(3, -3, steps)))
    return ScalarProcess(alphas, np.arange(steps), steps, FACTOR)


def variance(alpha):
    return alpha * DEVIATION**2 + FACTOR**2 * (1 - alpha)


def error(kind, steps):
    """Of a sampler that steps from the last step to the first, for a Gaussian target."""
    process = even_in_log_snr(steps)
    sampler, alphas = kind(process), process.alphas_cumprod
    z, previous = torch.ones(1, 1, dtype=torch.float64), None
    for k in range(steps - 1, 0, -1):
        z_0_hat = np.sqrt(alphas[k]) * DEVIATION**2 / variance(alphas[k]) * z
        z = sampler.step(z, z_0_hat, k, None, previous=previous)
        previous = z_0_hat
    return abs(z.item() - np.sqrt(variance(alphas[0]) / variance(alphas[-1])))


def test_without_a_prediction_before_it_is_ddim():
    process = GaussianProcess.create("cosine", 100, 3.0).spaced(9)
    z_t, z_0_hat = torch.randn(2, 5, 4, dtype=torch.float64).unbind(0)
    for k in range(9):
        expected = DDIM(process).step(z_t, z_0_hat, k, None)
        torch.testing.assert_close(DPMSolver(process).step(z_t, z_0_hat, k, None), expected)


@pytest.mark.parametrize("kind, order", [(DDIM, 1), (DPMSolver, 2)])
def test_order_of_convergence_on_a_gaussian_target(kind, order):
    """Twice the steps divide the error by 2 to the power of the order."""
    errors = [error(kind, steps) for steps in (81, 161, 321)]
    rates = [np.log2(a / b) for a, b in zip(errors, errors[1:])]
    assert rates == pytest.approx([order, order], abs=0.15)


def test_few_steps_are_nearer_than_those_of_ddim():
    assert error(DPMSolver, 11) < 0.5 * error(DDIM, 11)


def test_a_known_target_is_exact_in_any_number_of_steps():
    """A prediction that does not change: z_s has that mean, and the noise of z_t, rescaled."""
    process = GaussianProcess.create("sqrt", 50, 4.0).spaced(6)
    alphas, z_0 = process.alphas_cumprod, torch.randn(3, 2, dtype=torch.float64)
    noise = torch.randn(3, 2, dtype=torch.float64)
    z = np.sqrt(alphas[5]) * z_0 + 4.0 * np.sqrt(1 - alphas[5]) * noise
    for k in range(5, 0, -1):
        z = DPMSolver(process).step(z, z_0, k, None, previous=None if k == 5 else z_0)
        expected = np.sqrt(alphas[k - 1]) * z_0 + 4.0 * np.sqrt(1 - alphas[k - 1]) * noise
        torch.testing.assert_close(z, expected)
