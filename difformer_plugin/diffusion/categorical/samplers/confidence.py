"""Unmasking in the order of confidence, with or without remasking (mask-predict)."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch.nn import functional as F

from difformer_plugin.diffusion.categorical.draft import Draft
from difformer_plugin.diffusion.categorical.process import at
from difformer_plugin.diffusion.categorical.samplers.base import TokenSampler, draw_x_0
from difformer_plugin.diffusion.ranking import rank_in_rows
from difformer_plugin.diffusion.sampler import Layout, register_sampler, setting


@register_sampler
@dataclass
class Confidence(TokenSampler):
    """The absorbing process, unmasking the most confident tokens first.

    Of w tokens that are not given, the floor((1 - alpha_s) w) least likely ones are masks at time
    s. With remasking, tokens that are there already may become masks again; at temperature 0 this
    is mask-predict (Ghazvininejad et al., 2019).
    """

    remasking: bool = setting(
        False,
        "with --decoding-sampler confidence, tokens may become masks again (with temperature 0: "
        "mask-predict)",
    )

    name: ClassVar[str] = "confidence"
    needs_mask: ClassVar[bool] = True

    @classmethod
    def ignores_noise(cls, temperature: float = 0.0, **settings: Any) -> bool:
        """At temperature 0 nothing is drawn: tokens and their order are given."""
        return temperature == 0

    def leap(
        self,
        z: Draft,
        prediction: torch.Tensor,
        t: float,
        s: float,
        noise: torch.Tensor,
        layout: Layout,
    ) -> Draft:
        """The state at time s; see `TokenSampler.leap`."""
        first_type, mask = self.vocabulary.first_type, self.vocabulary.mask
        tokens, log_probs = z.tokens.clone(), z.log_probs.clone()
        for here, logits in self.iter_logits(z, prediction):
            log_p = F.log_softmax(logits, dim=-1)
            x_0 = draw_x_0(log_p, self.temperature, noise[here, 0])
            tokens[here], log_probs[here] = x_0 + first_type, at(log_p, x_0)
        inside = z.tokens >= first_type
        if z.given is not None:
            inside &= ~z.given
        process: Any = self.process  # absorbing: it has a schedule
        alpha = process.schedule.alpha_bar(torch.tensor(s, dtype=torch.float64)).item()
        counts = torch.zeros_like(layout.lengths).index_add_(0, layout.rows, inside.long())
        num_masks = ((1 - alpha) * counts + 1e-9).floor().long()
        may_be_masked = inside if self.remasking else z.tokens == mask
        order = torch.where(may_be_masked, log_probs, torch.inf)
        remasked = (rank_in_rows(order, layout.rows) < num_masks[layout.rows]) & may_be_masked
        return Draft(torch.where(remasked, mask, tokens), log_probs.masked_fill(remasked, 0))
