"""The denoiser of discrete diffusion: it reads tokens and masks, and scores the types."""

from typing import Any

import torch
from torch import nn

from difformer_plugin.networks.denoiser import Denoiser


class TokenDenoiser(Denoiser):
    """A Denoiser that reads tokens; its predictions (N, D) are scored by the rounding table.

    Args:
        has_mask: embed a mask, too; its index is the one after the dictionary's last.
    """

    def __init__(
        self,
        cfg: Any,
        time_scale: float,
        embed_tokens: nn.Embedding,
        *networks: Any,
        has_mask: bool,
    ):
        super().__init__(cfg, time_scale, embed_tokens, *networks)
        self.mask = len(embed_tokens.weight)
        self.embed_mask = None
        if has_mask:
            self.embed_mask = nn.Embedding(1, cfg.latent_dim)
            nn.init.normal_(self.embed_mask.weight, std=cfg.latent_dim**-0.5)

    def embed(self, tokens: torch.Tensor) -> torch.Tensor:
        """Tokens (...) -> (..., D), as the layers read them."""
        types = self.embed_tokens(tokens.clamp(max=self.mask - 1))
        if self.embed_mask is not None:
            mask = self.embed_mask.weight[0]
            types = torch.where((tokens == self.mask)[..., None], mask, types)
        return self.norm_z_0(self.embed_scale * types)
