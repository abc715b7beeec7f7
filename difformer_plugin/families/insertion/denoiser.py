"""The denoiser of flexible length: it also says how many tokens are missing in each gap."""

from typing import Any

import torch
from torch import nn

from difformer_plugin.families.tokens.denoiser import TokenDenoiser


class InsertionDenoiser(TokenDenoiser):
    """A TokenDenoiser with a head that counts missing tokens."""

    def __init__(self, cfg: Any, *networks: Any):
        super().__init__(cfg, *networks, has_mask=True)
        self.insertions = nn.Linear(2 * cfg.latent_dim, 1)
        nn.init.zeros_(self.insertions.weight)
        nn.init.zeros_(self.insertions.bias)

    def missing(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        """The outputs that `insertion.process.log_missing` reads, float32 (G,).

        Args:
            left, right: (G, D), the predictions of the symbols on either side of each gap.
        """
        left, right = (x.type_as(self.insertions.weight) for x in (left, right))
        return self.insertions(torch.cat([left, right], dim=-1))[:, 0].float()
