"""Ancestral sampling of tokens: a guess of x_0, then the posterior of the forward process."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch.nn import functional as F

from difformer_plugin.diffusion.categorical.process import at
from difformer_plugin.diffusion.categorical.samplers.base import TokenSampler, draw_x_0
from difformer_plugin.diffusion.sampler import register_sampler


@register_sampler
@dataclass
class Ancestral(TokenSampler):
    """x~_0 from p~(x_0 | x_t), then x_s from q(x_s | x_t, x~_0); together p(x_s | x_t)."""

    name: ClassVar[str] = "ancestral"

    def moving(self, s: torch.Tensor, t: torch.Tensor, u: torch.Tensor) -> torch.Tensor | None:
        """Which tokens can change; see `TokenSampler.moving`."""
        return self.process.moving(s, t, u[:, 1:])

    def move(
        self,
        x_t: torch.Tensor,
        logits: torch.Tensor,
        s: torch.Tensor,
        t: torch.Tensor,
        u: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """States x_s and their log-probabilities; see `TokenSampler.move`."""
        log_p = F.log_softmax(logits, dim=-1)
        x_0 = draw_x_0(log_p, self.temperature, u[:, 0])
        x_s = self.process.step(x_t, x_0, s, t, u[:, 1:])
        unmasked = x_s < self.process.types
        return x_s, at(log_p, x_s * unmasked) * unmasked
