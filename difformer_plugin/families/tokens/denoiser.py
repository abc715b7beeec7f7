"""The denoiser of discrete diffusion: it reads tokens and masks, and scores the types."""

import torch
from torch import nn

from difformer_plugin.networks.denoiser import Denoiser


class DiscreteDenoiser(Denoiser):
    """A Denoiser whose targets are tokens, the mask among them: the index after the last type's.

    Its predictions (N, D) are scored by the same table that rounds a Difformer's; with a flexible
    length they also say how many tokens are missing.
    """

    def __init__(self, cfg, time_scale, embed_tokens, *networks):
        super().__init__(cfg, time_scale, embed_tokens, *networks)
        self.mask = len(embed_tokens.weight)
        self.embed_mask = None
        if cfg.process == "absorbing":
            self.embed_mask = nn.Embedding(1, cfg.latent_dim)
            nn.init.normal_(self.embed_mask.weight, std=cfg.latent_dim**-0.5)
        if cfg.objective == "flexible":
            self.insertions = nn.Linear(2 * cfg.latent_dim, 1)
            nn.init.zeros_(self.insertions.weight)
            nn.init.zeros_(self.insertions.bias)

    def embed(self, tokens):
        """Tokens (...) -> (..., D), as they are read."""
        types = self.embed_tokens(tokens.clamp(max=self.mask - 1))
        if self.embed_mask is not None:
            mask = self.embed_mask.weight[0]
            types = torch.where((tokens == self.mask)[..., None], mask, types)
        return self.norm_z_0(self.embed_scale * types)

    def missing(self, left, right):
        """How many tokens are missing in gaps, as `flexible.log_missing` reads it: float32 (G,).

        Args:
            left, right: (G, D), predictions of the symbols on either side.
        """
        left, right = (x.type_as(self.insertions.weight) for x in (left, right))
        return self.insertions(torch.cat([left, right], dim=-1))[:, 0].float()
