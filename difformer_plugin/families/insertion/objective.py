"""The loss of diffusion with a growing length: masked tokens, and tokens that are missing."""

from dataclasses import dataclass
from typing import Any

import torch
from fairseq.criterions import register_criterion
from fairseq.dataclass import FairseqDataclass

from difformer_plugin.diffusion.categorical.objectives import MDLM
from difformer_plugin.diffusion.insertion.process import bregman, path_kl
from difformer_plugin.errors import UserError
from difformer_plugin.families.tokens.objective import (
    DiscreteDiffusionLoss,
    TokenCriterion,
    check_score_loss,
)
from difformer_plugin.options import flag, option


@dataclass
class InsertionDiffusionLossConfig(FairseqDataclass):
    label_smoothing: float = option(0.0, "epsilon of the label smoothing of the cross-entropy")
    bound_times: int = option(
        4, "times, evenly spaced, over which validation averages a sentence's bound"
    )


@register_criterion("insertion_diffusion_loss", dataclass=InsertionDiffusionLossConfig)
class InsertionDiffusionLoss(TokenCriterion):
    """The cross-entropy of masks, weighted as MDLM's, and the loss of gaps (Flex-MDLM)."""

    def build_objective(self, model: Any) -> MDLM:
        """MDLM's, in continuous time."""
        return MDLM(model.process, None, self.cfg.label_smoothing)

    def terms(self, model: Any, output: Any) -> dict[str, torch.Tensor]:
        """Sums over a batch, float32: the losses of masks and gaps, and the bound."""
        terms = super().terms(model, output)
        missing, expected, t = output.gaps.missing, output.gaps.log_expected, output.gaps.t
        weight = self.objective.process.schedule.unmasking_rate(t)
        terms["insertions"] = (weight * bregman(missing, expected)).sum().float()
        with torch.no_grad():
            terms["bound"] += (weight * path_kl(missing, expected)).sum().float()
        return terms


class LossUnderDiscreteName(InsertionDiffusionLoss):
    """The same for `--criterion discrete_diffusion_loss --objective flexible`.

    fairseq resumes training only with a criterion whose class has the name in the checkpoint.
    """

    def __init__(self, cfg: Any, task: Any):
        super().__init__(cfg, task)
        for name in ("auxiliary_loss_factor", "length_loss_factor"):
            if getattr(cfg, name) is not None:
                raise UserError(
                    f"{flag(name)}: a model whose lengths grow (--objective flexible) has no such "
                    "loss; leave it out"
                )
        check_score_loss(cfg.score_loss, task.model_cfg.objective)


LossUnderDiscreteName.__name__ = DiscreteDiffusionLoss.__name__
