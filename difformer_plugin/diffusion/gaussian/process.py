"""The Gaussian forward process on embeddings, and its posterior."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from difformer_plugin.diffusion.gaussian.rescaling import check_factor
from difformer_plugin.diffusion.parameters import ParameterError
from difformer_plugin.diffusion.schedules import alpha_bar_series


def spaced_timesteps(diffusion_steps: int, decoding_steps: int) -> np.ndarray:
    """K of the T steps, evenly spaced from the first to the last (Sec. 3.3; Nichol and Dhariwal).

    Returns:
        int64 array (K,), increasing, from 0 to T - 1 (only T - 1 for K = 1).
    Raises:
        ParameterError: K is not in 1 .. T.
    """
    if not 1 <= decoding_steps <= diffusion_steps:
        raise ParameterError(
            "decoding_steps",
            f"must lie between 1 and the model's {diffusion_steps} diffusion steps",
            decoding_steps,
        )
    if decoding_steps == 1:
        # A single step starts from pure noise, which only the last time step stands for.
        return np.array([diffusion_steps - 1])
    # Accumulated rather than multiplied, as the reference does: round-off decides about halves.
    stride, position, chosen = (diffusion_steps - 1) / (decoding_steps - 1), 0.0, []
    for _ in range(decoding_steps):
        chosen.append(round(position))
        position += stride
    return np.array(chosen, dtype=np.int64)


@dataclass(frozen=True)
class GaussianProcess:
    """q(z_t | z_0) = N(sqrt(alpha-bar_t) z_0, F^2 beta-bar_t I), seen at K of its T steps.

    Attributes:
        alphas_cumprod: float64 array (K,), alpha-bar at these steps.
        timesteps: int64 array (K,), which of the T steps they are.
        diffusion_steps: T.
        noise_scale: F where the noise itself is amplified (Eq. 3); 1 otherwise.
    """

    alphas_cumprod: np.ndarray
    timesteps: np.ndarray
    diffusion_steps: int
    noise_scale: float = 1.0

    @classmethod
    def create(
        cls,
        schedule: str,
        diffusion_steps: int,
        rescaling_factor: float = 1.0,
        vp_rf: bool = False,
    ) -> "GaussianProcess":
        """The process at all of its T steps.

        Args:
            schedule: a name in `schedules.SCHEDULES`.
            diffusion_steps: T.
            rescaling_factor: F. With `vp_rf` it rescales the schedule (Eq. 8) and leaves the noise
                as it is; without, it multiplies the noise (Eq. 3).
        """
        check_factor(rescaling_factor)
        return cls(
            alpha_bar_series(schedule, diffusion_steps, rescaling_factor if vp_rf else 1.0),
            np.arange(diffusion_steps),
            diffusion_steps,
            1.0 if vp_rf else float(rescaling_factor),
        )

    def spaced(self, decoding_steps: int) -> "GaussianProcess":
        """The same process, seen at K evenly spaced steps only."""
        chosen = spaced_timesteps(len(self.timesteps), decoding_steps)
        return GaussianProcess(
            self.alphas_cumprod[chosen],
            self.timesteps[chosen],
            self.diffusion_steps,
            self.noise_scale,
        )

    def __len__(self) -> int:
        return len(self.timesteps)

    @property
    def times(self) -> np.ndarray:
        """The steps as times t / T in [0, 1), float64 array (K,)."""
        return self.timesteps / self.diffusion_steps

    def q_sample(self, z_0: torch.Tensor, t: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """z_t = sqrt(alpha-bar_t) z_0 + sqrt(beta-bar_t) F noise (Eq. 3).

        Args:
            z_0: (B, L, D).
            t: int64 (B,), indices of the K steps.
            noise: (B, L, D), standard normal.
        """
        mean = self._at(np.sqrt(self.alphas_cumprod), t, z_0)
        deviation = self._at(np.sqrt(1 - self.alphas_cumprod) * self.noise_scale, t, z_0)
        return mean * z_0 + deviation * noise

    def q_step(
        self, z_t: torch.Tensor, t: torch.Tensor, s: torch.Tensor, noise: torch.Tensor
    ) -> torch.Tensor:
        """z_s from q(z_s | z_t) for later steps s >= t: the forward process goes on from z_t.

        Args:
            z_t: (B, L, D).
            t, s: int64 (B,), indices of the K steps.
            noise: (B, L, D), standard normal.
        """
        series = torch.tensor(self.alphas_cumprod, device=t.device)
        ratio = series[s] / series[t]
        mean, deviation = ratio.sqrt(), (1 - ratio).sqrt() * self.noise_scale
        return (
            mean.to(z_t.dtype)[:, None, None] * z_t + deviation.to(z_t.dtype)[:, None, None] * noise
        )

    @cached_property
    def deviations(self) -> np.ndarray:
        """The standard deviation of z_t at each step if that of z_0 is 1, float64 array (K,)."""
        return np.sqrt(self.alphas_cumprod + (1 - self.alphas_cumprod) * self.noise_scale**2)

    @cached_property
    def posterior_coefficients(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
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

    @staticmethod
    def _at(series: np.ndarray, t: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        values = torch.from_numpy(series).to(device=t.device)[t]
        return values.to(like.dtype)[:, None, None]
