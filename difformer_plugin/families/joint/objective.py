"""The objective of joint diffusion: Difformer's, weighted for what the network predicts."""

from dataclasses import dataclass
from typing import Any, Optional

import torch
from fairseq.criterions import register_criterion

from difformer_plugin.errors import UserError
from difformer_plugin.families.embeddings.objective import DifformerLoss, DifformerLossConfig
from difformer_plugin.options import option


@dataclass
class JointDiffusionLossConfig(DifformerLossConfig):
    padding_weight: Optional[float] = option(
        None,
        "with --length-by-padding, what a position of padding costs relative to one of a word (1 "
        "in the papers); default: such that all padding of a batch weighs as much as all its words",
    )


@register_criterion("joint_diffusion_loss", dataclass=JointDiffusionLossConfig)
class JointDiffusionLoss(DifformerLoss):
    """L_vlb + L_anchor + the length's loss, as `DifformerLoss`.

    L_vlb is the squared error of what the network predicts, or the bound's term.
    """

    def __init__(self, cfg: Any, task: Any):
        super().__init__(cfg, task)
        if cfg.padding_weight is not None and not cfg.padding_weight >= 0:
            raise UserError(f"--padding-weight must be at least 0, not {cfg.padding_weight:g}")

    def token_weights(self, output: Any) -> torch.Tensor | None:
        """What all costs of tokens are multiplied by, (N,), 1 on average; None for 1.

        Validation weighs all alike, so that its losses do not depend on the batches.
        """
        weights = super().token_weights(output)
        if output.padding is None and self.cfg.padding_weight is not None:
            raise UserError("--padding-weight does nothing without --length-by-padding: give both")
        if output.padding is None or not output.padding.any() or not self.training:
            return weights
        padding = output.padding.float()
        factor = self.cfg.padding_weight
        if factor is None:
            factor = (len(padding) - padding.sum()) / padding.sum()
        own = 1 + (factor - 1) * padding
        own = own / own.mean().clamp(min=1e-6)
        return own if weights is None else own * weights
