"""Decide the most confident tokens first, as mask-predict does; the others stay noisy."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from difformer_plugin.diffusion.gaussian.partly_clean import PartlyClean
from difformer_plugin.diffusion.gaussian.rounding import rounded_of
from difformer_plugin.diffusion.gaussian.samplers.ancestral import Ancestral
from difformer_plugin.diffusion.ranking import rank_in_rows
from difformer_plugin.diffusion.sampler import Layout, Noise, register_sampler, setting


@register_sampler
@dataclass(frozen=True)
class Confidence(Ancestral):
    """Of w tokens, the floor(k w / K) least likely ones are noisy at the step before the k-th.

    Given tokens do not count. All others are z_0 of their likeliest types. A token that is decided
    keeps the probability of when it was predicted, and may become noisy again (Ghazvininejad et
    al., 2019, for masks): z_s is then drawn from q(z_s | z_0) of the type it had.
    """

    fresh_noise: bool = setting(
        False,
        "with --decoding-sampler confidence of embeddings, tokens that are not decided begin again "
        "from pure noise at each step",
    )

    name: ClassVar[str] = "confidence"
    decides_tokens: ClassVar[bool] = True

    def prior(self, noise: Noise, layout: Layout | None = None) -> Any:
        """Pure noise; no token is decided."""
        return PartlyClean.noisy(super().prior(noise, layout))

    def step(
        self,
        z: Any,
        prediction: torch.Tensor,
        k: int,
        noise: Noise,
        layout: Any = None,
        previous: torch.Tensor | None = None,
    ) -> PartlyClean:
        """The state before step k; see `Sampler.step`."""
        assert self.nearest is not None
        noisy = self._noisy(z, prediction, k, noise, layout, previous)
        tokens, embeddings, log_probs = self.nearest(prediction)
        z_0 = torch.where(z.clean[:, None], z.z, embeddings.to(z.z.dtype))
        tokens = torch.where(z.clean, z.tokens, tokens)
        log_probs = torch.where(z.clean, z.log_probs, log_probs)
        order = log_probs
        if layout.real is not None:
            order = order.masked_fill(~layout.real, torch.inf)
        count = layout.lengths
        if z.given is not None:
            order = order.masked_fill(z.given, torch.inf)
            count = count.index_add(0, layout.rows, -z.given.long())
        count = count * k // len(self.process)
        clean = rank_in_rows(order, layout.rows) >= count[layout.rows]
        return PartlyClean(torch.where(clean[:, None], z_0, noisy), clean, log_probs, tokens)

    def _noisy(
        self,
        z: PartlyClean,
        prediction: torch.Tensor,
        k: int,
        noise: Noise,
        layout: Any,
        previous: torch.Tensor | None,
    ) -> torch.Tensor:
        """The latents (N, D) before step k of tokens that are not decided there."""
        drawn = noise()
        if self.fresh_noise:
            return drawn * self.process.noise_scale
        posterior = super().step(z.z, prediction, k, lambda: drawn, layout, previous)
        if k == 0:  # all tokens are decided
            return posterior
        before = torch.full_like(layout.lengths, k - 1)
        again = self.process.q_sample(z.z, before, drawn, layout)
        return torch.where(z.clean[:, None], again.to(posterior.dtype), posterior)

    def finish(
        self,
        z: Any,
        prediction: torch.Tensor,
        k: int,
        noise: Noise,
        layout: Layout | None = None,
    ) -> PartlyClean:
        """z_0 of decided tokens, and what is rounded of the others."""
        rounded = rounded_of(prediction, z.z.shape[1])
        return PartlyClean(z.completed(rounded), z.clean, z.log_probs, z.tokens, z.given)

    def impose(
        self,
        z: Any,
        z_0: torch.Tensor,
        given: torch.Tensor,
        k: int,
        noise: Noise,
        layout: Layout,
    ) -> PartlyClean:
        """The state in which given tokens are decided, whatever `infill` is."""
        return PartlyClean(
            torch.where(given[:, None], z_0.to(z.z.dtype), z.z),
            z.clean | given,
            z.log_probs.masked_fill(given, 0.0),
            z.tokens,
            given,
        )
