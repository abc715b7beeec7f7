"""The Gaussian forward process on embeddings, and its posterior."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch

from difformer_plugin.diffusion.gaussian.coefficients import Coefficient, functions_of
from difformer_plugin.diffusion.gaussian.device_copies import DeviceCopies
from difformer_plugin.diffusion.gaussian.rescaling import check_factor
from difformer_plugin.diffusion.parameters import ParameterError
from difformer_plugin.diffusion.positional_schedules import (
    POSITIONAL_SCHEDULES,
    PositionalSchedule,
)
from difformer_plugin.diffusion.schedules import alpha_bar_series, rescale_alpha_bar
from difformer_plugin.diffusion.timesteps import UNIFORM, chosen_times


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


class Places(Protocol):
    """Where N tokens stand in the targets of n candidates: any `Layout` says it.

    Attributes:
        positions: int64 (N,), the place of each token in its candidate, from 0.
        rows: int64 (N,), the candidate of each token.
        lengths: int64 (n,), the tokens of each candidate, padding not counted.
    """

    @property
    def positions(self) -> torch.Tensor: ...
    @property
    def rows(self) -> torch.Tensor: ...
    @property
    def lengths(self) -> torch.Tensor: ...


class GaussianProcess:
    """q(z_t | z_0) = N(sqrt(alpha-bar_t) z_0, F^2 beta-bar_t I), seen at K of its T steps.

    What alpha-bar depends on is a subclass's: on the time alone, or on the token's position too. In
    the second case the formulas hold position by position, a diagonal matrix in the place of a
    number.

    Attributes:
        timesteps: int64 array (K,), which of the T steps they are.
        diffusion_steps: T.
        noise_scale: F where the noise itself is amplified (Eq. 3); 1 otherwise.
    """

    timesteps: np.ndarray
    diffusion_steps: int
    noise_scale: float

    @staticmethod
    def create(
        schedule: str,
        diffusion_steps: int,
        rescaling_factor: float = 1.0,
        vp_rf: bool = False,
    ) -> "GaussianProcess":
        """The process at all of its T steps.

        Args:
            schedule: a name in `schedules.SCHEDULES` or in `POSITIONAL_SCHEDULES`.
            diffusion_steps: T.
            rescaling_factor: F. With `vp_rf` it rescales the schedule (Eq. 8) and leaves the noise
                as it is; without, it multiplies the noise (Eq. 3).
        Returns:
            a ScalarProcess or a PositionalProcess.
        """
        check_factor(rescaling_factor)
        of_schedule, of_noise = (rescaling_factor, 1.0) if vp_rf else (1.0, float(rescaling_factor))
        timesteps = np.arange(diffusion_steps)
        if schedule in POSITIONAL_SCHEDULES:
            function = POSITIONAL_SCHEDULES[schedule]
            return PositionalProcess(function, timesteps, diffusion_steps, of_noise, of_schedule)
        series = alpha_bar_series(schedule, diffusion_steps, of_schedule)
        return ScalarProcess(series, timesteps, diffusion_steps, of_noise)

    def spaced(self, decoding_steps: int, timesteps: str = UNIFORM) -> "GaussianProcess":
        """The same process, seen at K of its steps only.

        Args:
            timesteps: a grid, by default K evenly spaced steps, or a list of K steps from 1 to T;
                see `timesteps.listed_times`.
        Raises:
            ParameterError: K is not in 1 .. T, or a listed step is none of the T.
        """
        total = len(self.timesteps)
        chosen = spaced_timesteps(total, decoding_steps)
        if timesteps != UNIFORM:
            chosen = chosen_times(timesteps, total, decoding_steps).astype(np.int64) - 1
        return self._at_steps(chosen)

    def _at_steps(self, chosen: np.ndarray) -> "GaussianProcess":
        """The same process, seen at these of its steps only, int64 (K,), rising."""
        raise NotImplementedError

    def __len__(self) -> int:
        return len(self.timesteps)

    @property
    def times(self) -> np.ndarray:
        """The steps as times t / T in [0, 1), float64 array (K,)."""
        return self.timesteps / self.diffusion_steps

    def alpha_bar(self, k: Any, layout: Places | None) -> Any:
        """alpha-bar of the N tokens at a step.

        Args:
            k: the index of the step among the K; or int64 (n,), one for each candidate.
            layout: of the tokens; a ScalarProcess does not read it for a single step.
        Returns:
            a number, if k is one and the position does not matter; else float64 (N, 1).
        """
        raise NotImplementedError

    def posterior(self, k: int, layout: Places | None) -> tuple[Any, Any, Any]:
        """xi, lambda and F sqrt(beta-tilde) of q(z_s | z_t, z_0), s being the step before k.

        See `posterior_moments`. The deviation of the first step is 0; the second's is given.

        Returns:
            three numbers, or three float64 tensors (N, 1).
        """
        raise NotImplementedError

    def q_sample(
        self,
        z_0: torch.Tensor,
        t: torch.Tensor,
        noise: torch.Tensor,
        layout: Places | None = None,
    ) -> torch.Tensor:
        """z_t = sqrt(alpha-bar_t) z_0 + sqrt(beta-bar_t) F noise (Eq. 3).

        Args:
            z_0: (B, L, D), or packed (N, D).
            t: int64 (B,), indices of the K steps.
            noise: as z_0, standard normal.
            layout: of all B L positions, or of the N tokens. A ScalarProcess only reads it for
                packed tokens.
        """
        alpha_bar = self._of_candidates(t, z_0, layout)
        mean, deviation = alpha_bar.sqrt(), (1 - alpha_bar).sqrt() * self.noise_scale
        return mean.to(z_0.dtype) * z_0 + deviation.to(z_0.dtype) * noise

    def q_step(
        self,
        z_t: torch.Tensor,
        t: torch.Tensor,
        s: torch.Tensor,
        noise: torch.Tensor,
        layout: Places | None = None,
    ) -> torch.Tensor:
        """z_s from q(z_s | z_t) for later steps s >= t: the forward process goes on from z_t.

        Args:
            z_t: (B, L, D), or packed (N, D).
            t, s: int64 (B,), indices of the K steps.
            noise: as z_t, standard normal.
            layout: see `q_sample`.
        """
        before, after = (self._of_candidates(step, z_t, layout) for step in (t, s))
        ratio = after / before
        mean, deviation = ratio.sqrt(), (1 - ratio).sqrt() * self.noise_scale
        return mean.to(z_t.dtype) * z_t + deviation.to(z_t.dtype) * noise

    def _of_candidates(
        self, t: torch.Tensor, z: torch.Tensor, layout: Places | None
    ) -> torch.Tensor:
        """alpha-bar at a step (B,) for each candidate, float64, which broadcasts to z."""
        raise NotImplementedError


def posterior_moments(alpha_bar: Any, before: Any) -> tuple[Any, Any, Any]:
    """xi, lambda, beta-tilde of q(z_s | z_t, z_0) = N(xi z_0 + lambda z_t, F^2 beta-tilde I).

    App. B, with alpha_t = alpha-bar_t / alpha-bar_s for the step s before t.

    Args:
        alpha_bar, before: alpha-bar_t and alpha-bar_s, two arrays or two tensors of a shape.
    """
    sqrt, beta = functions_of(alpha_bar).sqrt, 1 - alpha_bar / before
    xi = beta * sqrt(before) / (1 - alpha_bar)
    lam = (1 - before) * sqrt(1 - beta) / (1 - alpha_bar)
    return xi, lam, beta * (1 - before) / (1 - alpha_bar)


@dataclass(frozen=True)
class ScalarProcess(GaussianProcess):
    """alpha-bar is one number for all tokens at a time.

    Attributes:
        alphas_cumprod: float64 array (K,), alpha-bar at the K steps.
    """

    alphas_cumprod: np.ndarray
    timesteps: np.ndarray
    diffusion_steps: int
    noise_scale: float = 1.0

    def _at_steps(self, chosen: np.ndarray) -> "ScalarProcess":
        return replace(
            self, alphas_cumprod=self.alphas_cumprod[chosen], timesteps=self.timesteps[chosen]
        )

    def alpha_bar(self, k: Any, layout: Places | None) -> Coefficient:
        """A number for one step, and float64 (N, 1) for a step of each candidate."""
        if isinstance(k, torch.Tensor):
            assert layout is not None
            return self._at(k)[layout.rows][:, None]
        return float(self.alphas_cumprod[k])

    def posterior(self, k: int, layout: Places | None) -> tuple[float, float, float]:
        """Three numbers; see `GaussianProcess.posterior`."""
        xi, lam, log_variance = (series[k] for series in self.posterior_coefficients)
        return float(xi), float(lam), float(np.exp(0.5 * log_variance) * self.noise_scale)

    @cached_property
    def posterior_coefficients(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """xi, lambda, log beta-tilde of all steps, three float64 arrays (K,).

        The variance of the first step is 0; its logarithm is clipped to the second's.
        """
        before = np.append(1.0, self.alphas_cumprod[:-1])
        xi, lam, variance = posterior_moments(self.alphas_cumprod, before)
        if len(variance) > 1:
            variance[0] = variance[1]
        with np.errstate(divide="ignore"):
            return xi, lam, np.log(variance)

    @cached_property
    def deviations(self) -> DeviceCopies:
        """The standard deviation of z_t at each step if that of z_0 is 1, float64 (K,)."""
        variances = self.alphas_cumprod + (1 - self.alphas_cumprod) * self.noise_scale**2
        return DeviceCopies(np.sqrt(variances))

    def _of_candidates(
        self, t: torch.Tensor, z: torch.Tensor, layout: Places | None
    ) -> torch.Tensor:
        if z.dim() == 3:
            return self._at(t)[:, None, None]
        return torch.as_tensor(self.alpha_bar(t, layout))

    @cached_property
    def _alpha_bars(self) -> DeviceCopies:
        return DeviceCopies(self.alphas_cumprod)

    def _at(self, t: torch.Tensor) -> torch.Tensor:
        return self._alpha_bars.on(t.device)[t]


@dataclass(frozen=True)
class PositionalProcess(GaussianProcess):
    """alpha-bar depends on the time, on the position of a token and on the length of its target.

    It is the schedule's at the times (t + 1) / T, as Eq. 3.3 of the thesis (2023) has it: not the
    product of clipped betas that the schedules of one number are made into.

    Attributes:
        schedule: a function (t, k, M) -> alpha-bar.
        schedule_factor: F of the variance-preserving form (Eq. 8); 1 otherwise.
    """

    schedule: PositionalSchedule
    timesteps: np.ndarray
    diffusion_steps: int
    noise_scale: float = 1.0
    schedule_factor: float = 1.0

    @cached_property
    def _steps(self) -> DeviceCopies:
        return DeviceCopies(self.timesteps)

    def _at_steps(self, chosen: np.ndarray) -> "PositionalProcess":
        return replace(self, timesteps=self.timesteps[chosen])

    def alpha_bar(self, k: Any, layout: Places | None) -> torch.Tensor:
        """Float64 (N, 1), for a step of all candidates or for one of each."""
        assert layout is not None
        positions, rows = layout.positions, layout.rows
        if isinstance(k, torch.Tensor):
            time = (self._steps.on(k.device)[k] + 1.0).double()[rows]
        else:
            step = float(self.timesteps[k] + 1)
            time = torch.full_like(positions, step, dtype=torch.float64)
        alpha_bar = self.schedule(
            time / self.diffusion_steps,
            (positions + 1).double(),
            layout.lengths[rows].double(),
        )
        if self.schedule_factor != 1:
            alpha_bar = rescale_alpha_bar(alpha_bar, self.schedule_factor)
        return alpha_bar[:, None]

    def posterior(
        self, k: int, layout: Places | None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Three float64 tensors (N, 1); see `GaussianProcess.posterior`."""
        alpha_bar = self.alpha_bar(k, layout)
        before = self.alpha_bar(k - 1, layout) if k else torch.ones_like(alpha_bar)
        xi, lam, variance = posterior_moments(alpha_bar, before)
        if k == 0 and len(self) > 1:
            return xi, lam, self.posterior(1, layout)[2]
        return xi, lam, variance.sqrt() * self.noise_scale

    def _of_candidates(
        self, t: torch.Tensor, z: torch.Tensor, layout: Places | None
    ) -> torch.Tensor:
        return self.alpha_bar(t, layout).view(*z.shape[:-1], 1)
