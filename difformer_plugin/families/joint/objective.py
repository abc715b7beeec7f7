"""The objective of joint diffusion: Difformer's, weighted for what the network predicts."""

from dataclasses import dataclass
from typing import Any

import torch
from fairseq.criterions import register_criterion

from difformer_plugin.families.embeddings.objective import DifformerLoss, DifformerLossConfig
from difformer_plugin.options import option


@dataclass
class JointDiffusionLossConfig(DifformerLossConfig):
    weighted_loss: bool = option(
        False,
        "weight squared errors as the variational bound does (Ho et al., 2020, Eq. 8 and 12); "
        "otherwise they are those of what --prediction names, all times alike",
    )


@register_criterion("joint_diffusion_loss", dataclass=JointDiffusionLossConfig)
class JointDiffusionLoss(DifformerLoss):
    """L_vlb + L_anchor + the length's loss, as `DifformerLoss`.

    L_vlb is the squared error of what the network predicts, or the bound's term.
    """

    def squared_error_weights(self, model: Any, output: Any) -> torch.Tensor | None:
        """What turns squared errors of z_0-hat into those that count, (N, 1); None for 1."""
        if self.cfg.weighted_loss:
            return model.kl_weights(output.t).float()
        if model.predicts_z_0:
            return None
        return model.coefficients(output.t)[0].square().float()
