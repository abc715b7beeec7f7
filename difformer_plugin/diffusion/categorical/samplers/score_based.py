"""Samplers of score entropy models (SEDD): the analytic (Tweedie) step, and tau-leaping."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from difformer_plugin.diffusion.categorical.process import at
from difformer_plugin.diffusion.categorical.samplers.base import RATIOS, TokenSampler, draw_x_0
from difformer_plugin.diffusion.categorical.scores import as_log_ratios, tau_leap, tweedie
from difformer_plugin.diffusion.sampler import register_sampler


@register_sampler
@dataclass
class Tweedie(TokenSampler):
    """p(x_s | x_t), exact for one token if the ratios are true (Lou et al., 2024, Theorem 4.2).

    A token moves as often at any temperature: below 1 to likelier types, above 1 to less likely
    ones.
    """

    name: ClassVar[str] = "tweedie"
    reads_logits_as: ClassVar[str] = RATIOS
    law = staticmethod(tweedie)

    def move(
        self,
        x_t: torch.Tensor,
        logits: torch.Tensor,
        s: torch.Tensor,
        t: torch.Tensor,
        u: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """States x_s and their log-probabilities; see `TokenSampler.move`."""
        law = tweedie if float(s[0]) == 0 else self.law  # tau-leaping would leave masks at time 0
        process: Any = self.process  # one whose ratios are known
        probs = law(process, as_log_ratios(process, logits), x_t, s, t)
        stays = at(probs, x_t)
        others = probs.scatter(1, x_t[:, None], 0)
        target = draw_x_0(others.clamp(min=1e-30).log(), self.temperature, u[:, 0])
        x_s = torch.where(u[:, 1] < stays, x_t, target)
        unmasked = x_s < self.process.types
        # of a mask that is filled: that of its type, and not of the time at which it is filled
        leaves = torch.where((x_t >= self.process.types) & unmasked, 1 - stays, 1.0)
        return x_s, (at(probs, x_s) / leaves).clamp(min=1e-30).log() * unmasked


@register_sampler
@dataclass
class TauLeaping(Tweedie):
    """Steps as if the rates stayed as they are at t; the last step is Tweedie's."""

    name: ClassVar[str] = "tau_leaping"
    law = staticmethod(tau_leap)
