"""The sampler of flexible length: each step fills masks and inserts others."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch.nn import functional as F

from difformer_plugin.diffusion.categorical.draft import Draft
from difformer_plugin.diffusion.categorical.process import at
from difformer_plugin.diffusion.categorical.samplers.base import (
    Logits,
    Vocabulary,
    check_temperature,
    draw_x_0,
    iter_logits,
    temperature_setting,
)
from difformer_plugin.diffusion.insertion.process import inserted, log_missing, poisson
from difformer_plugin.diffusion.noise import uniform_noise
from difformer_plugin.diffusion.sampler import Layout, Noise, register_sampler
from difformer_plugin.diffusion.schedules import Schedule

MAX_LOG_MISSING = 5.0  # logarithm of the greatest number of tokens that a gap is taken to lack


@register_sampler
@dataclass
class Growing:
    """K steps that fill masks and insert new ones, then one that fills what is left.

    A target starts as its frame, BOS and EOS, or as given tokens, and its length grows.

    Attributes:
        schedule: of alpha.
        grid: float64 array (K + 1,), the times of the steps' ends, from 0 to 1.
        vocabulary: which indices are types.
        logits: function from predictions (m, D) to logits (m, n).
        missing: function from the predictions (G, D) of the symbols left and right of each gap to
            the outputs (G,) that `log_missing` reads.
        max_length: of a target, with its frame.
        temperature: a setting.
    """

    schedule: Schedule
    grid: np.ndarray
    vocabulary: Vocabulary
    logits: Logits
    missing: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    max_length: int
    temperature: float = temperature_setting()

    name: ClassVar[str] = "ancestral"
    grows: ClassVar[bool] = True
    draw_noise = staticmethod(uniform_noise)

    @property
    def times(self) -> np.ndarray:
        """The time in [0, 1] of each prediction, float64 array (K + 1,)."""
        return self.grid

    @classmethod
    def check(cls, temperature: float = 0.0) -> None:
        """Raise a ParameterError for settings that it cannot have."""
        check_temperature(temperature)

    @classmethod
    def ignores_noise(cls, **settings: Any) -> bool:
        """Never: what is inserted is drawn."""
        return False

    def prior(self, noise: Noise, layout: Layout) -> Draft:
        """The frames alone."""
        tokens = torch.where(layout.positions == 0, self.vocabulary.bos, self.vocabulary.eos)
        return Draft(tokens, torch.zeros_like(noise()[:, 0]))

    def begin(self, tokens: torch.Tensor, joined: torch.Tensor) -> Draft:
        """The state at time 1 with given tokens, which stay, in place of the frames alone.

        Args:
            tokens: int64 (N,), from BOS to EOS; below 0 at padding.
            joined: bool (N,), tokens behind which nothing is inserted.
        """
        zeros = torch.zeros(len(tokens), device=tokens.device)
        return Draft(tokens.clamp(min=0), zeros, joined=joined)

    def step(
        self,
        z: Draft,
        prediction: torch.Tensor,
        k: int,
        noise: Noise,
        layout: Layout,
        previous: torch.Tensor | None = None,
    ) -> Draft:
        """From time grid[k] to grid[k - 1]: fill each mask with some probability, then insert.

        Returns:
            Draft, one candidate after another without padding, with its `lengths`.
        """
        if k == 0:
            return self.finish(z, prediction, k, noise, layout)
        u = noise()
        s, t = torch.tensor([self.grid[k - 1], self.grid[k]], dtype=torch.float64)
        chance = self.schedule.unmasking_probability(s, t).item()
        filled = self.fill_masks(z, prediction, u, chance)
        real = slice(None) if layout.real is None else layout.real
        tokens, log_probs = filled.tokens[real], filled.log_probs[real]
        prediction, u, lengths = prediction[real], u[real], layout.lengths
        gaps = (tokens != self.vocabulary.eos).nonzero()[:, 0]  # a gap follows its symbol
        outputs = self.missing(prediction[gaps], prediction[gaps + 1])
        expected = log_missing(self.schedule, t, outputs).clamp(max=MAX_LOG_MISSING).exp()
        counts = torch.zeros_like(tokens)
        counts[gaps] = poisson(chance * expected, u[gaps, 2])
        if z.joined is not None:
            counts[z.joined[real]] = 0
        places, lengths = inserted(lengths, counts, self.max_length)
        longer = tokens.new_full((int(lengths.sum()),), self.vocabulary.mask)
        scores = log_probs.new_zeros(len(longer))
        longer[places], scores[places] = tokens, log_probs
        joined = None
        if z.joined is not None:
            joined = torch.zeros(len(longer), dtype=torch.bool, device=longer.device)
            joined[places] = z.joined[real]
        return Draft(longer, scores, lengths, joined)

    def finish(
        self, z: Draft, prediction: torch.Tensor, k: int, noise: Noise, layout: Layout
    ) -> Draft:
        """Every mask filled."""
        return self.fill_masks(z, prediction, noise(), 1.0)

    def fill_masks(
        self, z: Draft, prediction: torch.Tensor, u: torch.Tensor, chance: float
    ) -> Draft:
        """The draft with each mask filled with probability `chance`; u: (N, 3)."""
        tokens, log_probs = z.tokens.clone(), z.log_probs.clone()
        fills = u[:, 1] < chance
        for here, logits in iter_logits(
            z, prediction, self.vocabulary, self.logits, masks_only=True, moving=fills
        ):
            log_p = F.log_softmax(logits, dim=-1)
            x_0 = draw_x_0(log_p, self.temperature, u[here, 0])
            tokens[here], log_probs[here] = x_0 + self.vocabulary.first_type, at(log_p, x_0)
        return Draft(tokens, log_probs, joined=z.joined)
