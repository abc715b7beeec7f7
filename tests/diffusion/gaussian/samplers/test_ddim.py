"""DDIM: between the ancestral step and the deterministic one, with the marginals of the process."""

import numpy as np
import pytest
import torch

from difformer_plugin.diffusion.gaussian.process import GaussianProcess
from difformer_plugin.diffusion.gaussian.samplers.ancestral import Ancestral
from difformer_plugin.diffusion.gaussian.samplers.ddim import DDIM
from difformer_plugin.diffusion.parameters import ParameterError

STEPS = 12
PROCESSES = [("sqrt", 1.0, False), ("cosine", 2.5, False), ("linear", 3.0, True)]


@pytest.fixture(params=PROCESSES, ids=[name for name, *_ in PROCESSES])
def process(request):
    schedule, factor, vp_rf = request.param
    return GaussianProcess.create(schedule, 200, factor, vp_rf).spaced(STEPS)


@pytest.fixture
def numbers():
    """z_t, z_0-hat and noise."""
    return torch.randn(3, 5, 4, dtype=torch.float64).unbind(0)


def no_noise():
    raise AssertionError("noise was drawn")


def test_eta_1_is_the_ancestral_step(process, numbers):
    z_t, z_0_hat, noise = numbers
    ancestral, ddim = Ancestral(process), DDIM(process, eta=1.0)
    for k in range(1, STEPS):
        ours = ddim.step(z_t, z_0_hat, k, lambda: noise)
        torch.testing.assert_close(ours, ancestral.step(z_t, z_0_hat, k, lambda: noise))


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_marginals_are_those_of_the_process(process, eta):
    """If z_t is q(z_t | z_0) and the prediction true, z_s is q(z_s | z_0): the step is linear."""
    sampler, scale = DDIM(process, eta=eta), process.noise_scale
    zero, one = torch.zeros(1, 1, dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64)
    for k in range(1, STEPS):
        alpha_s, alpha_t = process.alphas_cumprod[k - 1], process.alphas_cumprod[k]
        mean = sampler.step(np.sqrt(alpha_t) * one, one, k, lambda: zero).item()
        from_state = sampler.step(one, zero, k, lambda: zero).item()
        from_noise = sampler.step(zero, zero, k, lambda: one).item()
        variance = from_state**2 * scale**2 * (1 - alpha_t) + from_noise**2
        assert mean == pytest.approx(np.sqrt(alpha_s))
        assert variance == pytest.approx(scale**2 * (1 - alpha_s))


def test_eta_0_draws_no_noise_and_ends_at_the_prediction(process, numbers):
    z_t, z_0_hat, _ = numbers
    sampler = DDIM(process)
    for k in range(1, STEPS):
        assert sampler.step(z_t, z_0_hat, k, no_noise).isfinite().all()
    assert torch.equal(sampler.step(z_t, z_0_hat, 0, no_noise), z_0_hat)
    assert torch.equal(sampler.finish(z_t, z_0_hat, 3, no_noise), z_0_hat)


@pytest.mark.parametrize("eta", [-0.1, 1.1, float("nan")])
def test_values_that_eta_cannot_have(eta):
    with pytest.raises(ParameterError, match="eta must lie between 0 and 1"):
        DDIM.check(eta=eta)
