"""DPM-Solver++(2M): a second-order solver that reuses the prediction of the step before."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from difformer_plugin.diffusion.gaussian.coefficients import (
    Coefficient,
    functions_of,
    scaled,
)
from difformer_plugin.diffusion.gaussian.samplers.base import GaussianSampler
from difformer_plugin.diffusion.sampler import Layout, Noise, register_sampler


@register_sampler
@dataclass(frozen=True)
class DPMSolver(GaussianSampler):
    """Lu et al. (2022), Algorithm 2, for a network that predicts z_0. Steps draw no noise.

    With lambda_t = log(sqrt(alpha-bar_t) / (F sqrt(1 - alpha-bar_t))), h = lambda_s - lambda_t and
    r = (lambda_t - lambda_u) / h, u being the step before, on the way, and D the line through the
    last two predictions, D = (1 + 1 / 2r) z_0-hat_t - 1 / 2r z_0-hat_u:
    z_s = sqrt((1 - alpha-bar_s) / (1 - alpha-bar_t)) z_t + sqrt(alpha-bar_s) (1 - exp(-h)) D.
    Without a prediction before (at the first step, and where candidates grow), D is the present
    one, and the step that of DDIM with eta = 0.
    """

    name: ClassVar[str] = "dpm_solver"

    def _log_snr(self, k: int, layout: Layout | None) -> Coefficient:
        """lambda at step k, but for log F, which cancels in differences."""
        alpha = self.process.alpha_bar(k, layout)
        functions = functions_of(alpha)
        return 0.5 * (functions.log(alpha) - functions.log1p(-alpha))

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
        now = self._log_snr(k, layout)
        h = self._log_snr(k - 1, layout) - now
        target = z_0_hat
        if previous is not None:
            r = (now - self._log_snr(k + 1, layout)) / h
            target = scaled(1 + 0.5 / r, z_0_hat) - scaled(0.5 / r, previous)
        kept = functions.sqrt((1 - alpha_s) / (1 - alpha_t))
        return scaled(kept, z_t) + scaled(-functions.sqrt(alpha_s) * functions.expm1(-h), target)
