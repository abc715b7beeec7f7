"""DPM-Solver++(2M): a second-order solver that reuses the prediction of the step before."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

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

    def _log_snr(self, k: int) -> float:
        """lambda at step k, but for log F, which cancels in differences."""
        alpha = self.process.alphas_cumprod[k]
        return 0.5 * float(np.log(alpha) - np.log1p(-alpha))

    def step(
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
        alpha_s, alpha_t = self.process.alphas_cumprod[k - 1], self.process.alphas_cumprod[k]
        h = self._log_snr(k - 1) - self._log_snr(k)
        target = z_0_hat
        if previous is not None:
            r = (self._log_snr(k) - self._log_snr(k + 1)) / h
            target = (1 + 0.5 / r) * z_0_hat - (0.5 / r) * previous
        kept = float(np.sqrt((1 - alpha_s) / (1 - alpha_t)))
        return kept * z_t + float(-np.sqrt(alpha_s) * np.expm1(-h)) * target
