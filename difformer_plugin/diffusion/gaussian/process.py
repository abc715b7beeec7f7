"""The Gaussian process on embeddings: corrupt z_0, step back from z_t given a prediction."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from difformer_plugin.diffusion.gaussian.rescaling import check_factor
from difformer_plugin.diffusion.noise import normal
from difformer_plugin.diffusion.schedules import alphas_cumprod
from difformer_plugin.errors import UserError


def spaced_timesteps(diffusion_steps, decoding_steps):
    """K of the T steps, evenly spaced from the first to the last (Sec. 3.3; Nichol and Dhariwal).

    Returns:
        int64 array (K,), increasing, from 0 to T - 1 (only T - 1 for K = 1).
    """
    if not 1 <= decoding_steps <= diffusion_steps:
        raise UserError(
            f"--decoding-steps must lie between 1 and the model's {diffusion_steps} diffusion "
            f"steps, not {decoding_steps}"
        )
    if decoding_steps == 1:
        # a single step starts from pure noise, which only the last time step announces
        return np.array([diffusion_steps - 1])
    # accumulated and not multiplied: round-off decides about halves, and the same halves are wanted
    stride, position, chosen = (diffusion_steps - 1) / (decoding_steps - 1), 0.0, []
    for _ in range(decoding_steps):
        chosen.append(round(position))
        position += stride
    return np.array(chosen, dtype=np.int64)


@dataclass(frozen=True)
class GaussianProcess:
    """q(z_t | z_0) = N(sqrt(alpha-bar_t) z_0, F^2 beta-bar_t I), and its posterior on some steps.

    Attributes:
        alphas_cumprod: float64 array (K,), alpha-bar at the process's own steps.
        timesteps: int64 array (K,), the training step that each of them is.
        noise_scale: F where the noise itself is amplified (Eq. 3); 1 otherwise.
    """

    alphas_cumprod: np.ndarray
    timesteps: np.ndarray
    noise_scale: float = 1.0

    @classmethod
    def create(cls, schedule, diffusion_steps, rescaling_factor=1.0, vp_rf=False):
        """The process of all T steps.

        Args:
            schedule: a name in `schedules.SCHEDULES`.
            diffusion_steps: T.
            rescaling_factor: F. With `vp_rf` it rescales the schedule (Eq. 8) and the noise is left
                as it is; without, it multiplies the noise (Eq. 3).
        """
        check_factor(rescaling_factor)
        return cls(
            alphas_cumprod(schedule, diffusion_steps, rescaling_factor if vp_rf else 1.0),
            np.arange(diffusion_steps),
            1.0 if vp_rf else float(rescaling_factor),
        )

    def spaced(self, decoding_steps):
        """The same process, observed at K evenly spaced steps only."""
        chosen = spaced_timesteps(len(self.timesteps), decoding_steps)
        return GaussianProcess(
            self.alphas_cumprod[chosen], self.timesteps[chosen], self.noise_scale
        )

    def __len__(self):
        return len(self.timesteps)

    def q_sample(self, z_0, t, noise):
        """z_t = sqrt(alpha-bar_t) z_0 + sqrt(beta-bar_t) F noise (Eq. 3).

        Args:
            z_0: (B, L, D).
            t: int64 (B,), indices of the process's steps.
            noise: (B, L, D), standard normal.
        """
        mean = self._at(np.sqrt(self.alphas_cumprod), t, z_0)
        deviation = self._at(np.sqrt(1 - self.alphas_cumprod) * self.noise_scale, t, z_0)
        return mean * z_0 + deviation * noise

    draw_noise = staticmethod(normal)
    grows = False

    def prior(self, noise, layout=None):
        """z_T, the start of the reverse process: pure noise, scaled (B, L, D)."""
        return noise * self.noise_scale

    @cached_property
    def posterior_coefficients(self):
        """xi, lambda, log beta-tilde of q(z_s | z_t, z_0) = N(xi z_0 + lambda z_t, beta-tilde I).

        App. B, with alpha_t = alpha-bar_t / alpha-bar_s for the step s before t. The variance of
        the first step is 0; its logarithm is clipped to the second's.

        Returns:
            three float64 arrays (K,).
        """
        alpha_bar = self.alphas_cumprod
        before = np.append(1.0, alpha_bar[:-1])
        beta = 1 - alpha_bar / before
        xi = beta * np.sqrt(before) / (1 - alpha_bar)
        lam = (1 - before) * np.sqrt(1 - beta) / (1 - alpha_bar)
        variance = beta * (1 - before) / (1 - alpha_bar)
        if len(variance) > 1:
            variance[0] = variance[1]
        with np.errstate(divide="ignore"):
            return xi, lam, np.log(variance)

    def finish(self, z_t, z_0_hat, k, draw, layout=None):
        """The end of the reverse process: z_0 is what the last prediction says, without noise."""
        return z_0_hat

    def step(self, z_t, z_0_hat, k, noise, layout=None):
        """Draw z_s from q(z_s | z_t, z_0_hat), s being the step before the k-th.

        Args:
            z_t, z_0_hat, noise: (B, L, D).
            k: index of the step, the same for the whole batch.
        """
        xi, lam, log_variance = (series[k] for series in self.posterior_coefficients)
        deviation = np.exp(0.5 * log_variance) * self.noise_scale
        return float(xi) * z_0_hat + float(lam) * z_t + float(deviation) * noise

    @staticmethod
    def _at(series, t, like):
        values = torch.from_numpy(series).to(device=t.device)[t]
        return values.to(like.dtype)[:, None, None]
