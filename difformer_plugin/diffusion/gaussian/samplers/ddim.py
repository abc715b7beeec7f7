"""DDIM: steps that keep part of the noise that the state already holds."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from difformer_plugin.diffusion.gaussian.coefficients import functions_of, scaled
from difformer_plugin.diffusion.gaussian.samplers.base import GaussianSampler
from difformer_plugin.diffusion.parameters import ParameterError
from difformer_plugin.diffusion.sampler import Layout, Noise, register_sampler, setting


@register_sampler
@dataclass(frozen=True)
class DDIM(GaussianSampler):
    """Song et al. (2021), Eq. 12: eta = 0 draws no noise, eta = 1 is the ancestral step.

    With eps-hat the noise that z_0-hat leaves in z_t, s the step before t and sigma = eta times the
    deviation of q(z_s | z_t, z_0), all amplified by F:
    z_s = sqrt(alpha-bar_s) z_0-hat + F sqrt(1 - alpha-bar_s - sigma^2) eps-hat + F sigma noise.
    """

    eta: float = setting(
        0.0,
        "with --decoding-sampler ddim, the share of a step's noise that is fresh: 0 to 1",
        (0.0, 0.5),
    )

    name: ClassVar[str] = "ddim"

    @classmethod
    def check(cls, eta: float = 0.0, **settings: Any) -> None:
        """Raise a ParameterError unless eta is in [0, 1]."""
        if not 0 <= eta <= 1:
            raise ParameterError("eta", "must lie between 0 and 1", f"{eta:g}")

    def step_latents(
        self,
        z_t: torch.Tensor,
        z_0_hat: torch.Tensor,
        k: int,
        noise: Noise,
        layout: Layout | None = None,
        previous: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """z_s of step k, (N, D); the first step of the process leads to z_0-hat itself."""
        if k == 0:
            return z_0_hat
        alpha_s, alpha_t = (self.process.alpha_bar(step, layout) for step in (k - 1, k))
        functions = functions_of(alpha_t)
        sqrt = functions.sqrt
        variance = self.eta**2 * (1 - alpha_s) / (1 - alpha_t) * (1 - alpha_t / alpha_s)
        drawn = noise() if self.eta > 0 else None
        # of F eps-hat sqrt(1 - alpha_t); with eta = 1 and hardly any signal, it is 0 up to rounding
        kept = sqrt(functions.clip((1 - alpha_s - variance) / (1 - alpha_t), 0, None))
        z_s = scaled(kept, z_t) + scaled(sqrt(alpha_s) - kept * sqrt(alpha_t), z_0_hat)
        if drawn is not None:
            z_s = z_s + scaled(sqrt(variance) * self.process.noise_scale, drawn)
        return z_s
