"""Ancestral sampling: each step draws from the posterior of the forward process."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from difformer_plugin.diffusion.gaussian.coefficients import scaled
from difformer_plugin.diffusion.gaussian.samplers.base import GaussianSampler
from difformer_plugin.diffusion.sampler import Layout, Noise, register_sampler


@register_sampler
@dataclass(frozen=True)
class Ancestral(GaussianSampler):
    """z_s from q(z_s | z_t, z_0 = z_0-hat), s being the step before t (Ho et al., 2020; App. B)."""

    name: ClassVar[str] = "ancestral"

    def step_latents(
        self,
        z_t: torch.Tensor,
        z_0_hat: torch.Tensor,
        k: int,
        noise: Noise,
        layout: Layout | None = None,
        previous: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """xi z_0-hat + lambda z_t + F sqrt(beta-tilde) noise, (N, D)."""
        drawn = noise()  # first: the temporaries below would leave the caches while it is made
        xi, lam, deviation = self.process.posterior(k, layout)
        return scaled(xi, z_0_hat) + scaled(lam, z_t) + scaled(deviation, drawn)
