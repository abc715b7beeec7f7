"""What all samplers of Gaussian diffusion share."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from difformer_plugin.diffusion.gaussian.process import GaussianProcess
from difformer_plugin.diffusion.gaussian.rounding import z_0_of
from difformer_plugin.diffusion.noise import normal
from difformer_plugin.diffusion.sampler import Layout, Noise

INFILLS = ("z_0", "z_t", "noised")
INFILL = INFILLS[0]  # the default
Nearest = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor, torch.Tensor]]


@dataclass(frozen=True)
class GaussianSampler:
    """Draws latents z_0 (N, D) from pure noise; a subclass says what a step does.

    Predictions are (N, D) or (N, 2D), see `rounding`.

    Attributes:
        process: the forward process, seen at the K steps of decoding.
        nearest: a prediction -> its likeliest types (N,), their embeddings (N, D), and their
            log-probabilities (N,).
        infill: one of INFILLS, how given tokens are overwritten: in the prediction z_0-hat alone,
            which z_t follows by the posterior; or in z_t itself, by z_0 or by a z_t of z_0.
        decides_tokens: whether the state is a `PartlyClean`, which the model must be trained on.
    """

    process: GaussianProcess
    nearest: Nearest | None = None
    infill: str = INFILL

    name: ClassVar[str]
    grows: ClassVar[bool] = False
    decides_tokens: ClassVar[bool] = False
    draw_noise = staticmethod(normal)

    @property
    def times(self) -> np.ndarray:
        """The time in [0, 1) of each step, float64 array (K,)."""
        return self.process.times

    @classmethod
    def check(cls, **settings: Any) -> None:
        """Raise a ParameterError for settings that it cannot have."""

    @classmethod
    def ignores_noise(cls, **settings: Any) -> bool:
        """Never: the prior is noise."""
        return False

    def prior(self, noise: Noise, layout: Layout | None = None) -> torch.Tensor:
        """z_T: pure noise, amplified by F."""
        return noise() * self.process.noise_scale

    def step(
        self,
        z_t: torch.Tensor,
        prediction: torch.Tensor,
        k: int,
        noise: Noise,
        layout: Layout | None = None,
        previous: torch.Tensor | None = None,
    ) -> Any:
        """The state before step k; see `Sampler.step`."""
        dim = z_t.shape[1]
        before = None if previous is None else z_0_of(previous, dim)
        return self.step_latents(z_t, z_0_of(prediction, dim), k, noise, layout, before)

    def step_latents(
        self,
        z_t: torch.Tensor,
        z_0_hat: torch.Tensor,
        k: int,
        noise: Noise,
        layout: Layout | None = None,
        previous: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """z_s (N, D) of step k, s being the step before.

        Args:
            z_0_hat: (N, D), predicted at this step; previous: at the step before, if any.
        """
        raise NotImplementedError

    def finish(
        self,
        z_t: torch.Tensor,
        prediction: torch.Tensor,
        k: int,
        noise: Noise,
        layout: Layout | None = None,
    ) -> torch.Tensor:
        """z_0: the last prediction itself, without noise."""
        return prediction

    def impose(
        self,
        z_t: torch.Tensor,
        z_0: torch.Tensor,
        given: torch.Tensor,
        k: int,
        noise: Noise,
        layout: Layout,
    ) -> torch.Tensor:
        """z_t with given tokens in it, as `infill` says; see `Sampler.impose`."""
        if self.infill == "z_0":
            return z_t
        z_0 = z_0.to(z_t.dtype)
        if self.infill == "noised":
            step = torch.full_like(layout.lengths, k)
            z_0 = self.process.q_sample(z_0, step, noise(), layout)
        return torch.where(given[:, None], z_0, z_t)
