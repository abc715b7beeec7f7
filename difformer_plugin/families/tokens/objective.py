"""The loss of discrete diffusion: its objective and the length, with the bound in validation."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Optional

import torch
from fairseq.criterions import register_criterion
from fairseq.dataclass import FairseqDataclass

from difformer_plugin.diffusion.categorical.objectives import D3PM, MDLM, SCORE_LOSSES, SEDD
from difformer_plugin.errors import UserError
from difformer_plugin.families.chunked_sums import by_autograd
from difformer_plugin.families.criterion import (
    LENGTH_FACTOR,
    DiffusionCriterion,
    check_label_smoothing,
)
from difformer_plugin.options import flag, option

logger = logging.getLogger(__name__)

ABSORBING_AUXILIARY = 0.01  # lambda of the process with a mask (D3PM, Sec. 5.1)
# D3PM's loss is that of one of T steps, so that the length's weight has to be small beside it. It
# is larger where the auxiliary cross-entropy adds to that loss.
ONE_STEP_LENGTH_FACTOR, ONE_STEP_LENGTH_FACTOR_WITH_AUXILIARY = 1e-4, 1e-3


@dataclass
class DiscreteDiffusionLossConfig(FairseqDataclass):
    label_smoothing: float = option(
        0.0,
        "epsilon of the label smoothing of cross-entropies: of mdlm, flexible, d3pm's auxiliary "
        "one",
    )
    auxiliary_loss_factor: Optional[float] = option(
        None,
        "lambda, the weight of d3pm's auxiliary cross-entropy against one step's KL (Eq. 5); "
        "default: 0.01 for --process absorbing, else 0",
    )
    score_loss: str = option(
        "entropy",
        "loss of sedd's ratios: entropy (score entropy) or squared (their squared error, L_CSM)",
    )
    length_loss_factor: Optional[float] = option(
        None,
        "weight of the length predictor's loss; default: 0.1, and for d3pm, whose loss is that of "
        "one step, 0.001 with the auxiliary cross-entropy and 0.0001 without",
    )
    bound_times: int = option(
        4, "times, evenly spaced, over which validation averages a sentence's bound"
    )


def check_score_loss(name: str, objective: str) -> None:
    """Raise a UserError unless the objective has this loss of ratios."""
    if name not in SCORE_LOSSES:
        raise UserError(
            f"--score-loss {name}: no such loss; there are {' and '.join(SCORE_LOSSES)}"
        )
    if name != "entropy" and objective != "sedd":
        raise UserError(
            f"--score-loss {name} belongs to --objective sedd, not to {objective}: leave it out"
        )


class TokenCriterion(DiffusionCriterion):
    """An objective's mean over tokens, and the length's over sentences; all in nats.

    A target's tokens are counted without its frame.

    Attributes:
        length_factor: the weight of the length's loss.
    """

    token_terms = ("diffusion", "insertions", "bound")
    sentence_terms = ("length", "_length_loss")
    loss_terms = ("diffusion", "insertions", "_length_loss")
    length_factor = LENGTH_FACTOR

    def __init__(self, cfg: Any, task: Any):
        super().__init__(task)
        check_label_smoothing(cfg.label_smoothing)
        if cfg.bound_times < 1:
            raise UserError(f"--bound-times must be at least 1, not {cfg.bound_times}")
        self.cfg = cfg
        self.objective: Any = None  # made when a model is there

    def build_objective(self, model: Any) -> Any:
        """The objective of a model, whose process may be known only now."""
        raise NotImplementedError

    def forward(
        self, model: Any, sample: dict[str, Any], reduce: bool = True
    ) -> tuple[torch.Tensor, int, dict[str, Any]]:
        """The loss of a batch, summed over its tokens, their number, and what to log."""
        self.objective = self.objective or self.build_objective(model)
        parts, logged = 1 if model.training else self.cfg.bound_times, {}
        inputs = {"target": sample["target"], **sample["net_input"]}
        if parts > 1:
            inputs["memory"] = model.encoder(inputs["src_tokens"])
        for i in range(parts):
            output = model(part=(i, parts), **inputs)
            tokens, sentences = int(output.num_tokens.sum()), len(output.num_tokens)
            terms = self.terms(model, output)
            loss = terms["diffusion"] + terms.get("insertions", 0)
            if "length" in terms:
                terms["_length_loss"] = self.length_factor * terms["length"]
                loss = loss + terms["_length_loss"] * tokens / sentences
            for name, value in terms.items():
                logged[name] = logged.get(name, 0) + value.detach() / parts
        size = max(tokens, 1)
        logged |= {"ntokens": tokens, "nsentences": sentences, "sample_size": size}
        return loss, size, logged

    def terms(self, model: Any, output: Any) -> dict[str, torch.Tensor]:
        """Sums over a batch, float32: what is trained, the bound, the length's NLL."""
        here = slice(None)
        if self.objective.masks_only:
            here = (output.x_t == self.objective.process.mask).nonzero()[:, 0]
        predictions, table = output.predictions[here], model.rounding_table(model.denoiser)
        columns = [column[here] for column in (output.x_0, output.x_t, output.s, output.t)]
        loss, bound = self.token_sums(by_autograd(self.objective), predictions, table, *columns)
        # The second term gives every parameter a gradient, which distributed training counts on.
        terms = {"diffusion": loss + 0 * output.predictions[:1].sum(), "bound": bound.detach()}
        if output.length_logits is not None:
            terms["length"] = self.length_loss(output, "sum")
        return terms


@register_criterion("discrete_diffusion_loss", dataclass=DiscreteDiffusionLossConfig)
class DiscreteDiffusionLoss(TokenCriterion):
    """The criterion of D3PM, MDLM and SEDD."""

    def __init__(self, cfg: Any, task: Any):
        super().__init__(cfg, task)
        model_cfg = task.model_cfg
        for name in ("auxiliary_loss_factor", "length_loss_factor"):
            value = getattr(cfg, name)
            if value is not None and not value >= 0:
                raise UserError(f"{flag(name)} must be at least 0, not {value:g}")
        name = model_cfg.objective
        if cfg.auxiliary_loss_factor is not None and name != "d3pm":
            raise UserError(
                f"--auxiliary-loss-factor belongs to --objective d3pm, not to {name}: leave it out"
            )
        if cfg.label_smoothing and name == "sedd":
            raise UserError(
                "--label-smoothing: score entropy has no labels to smooth; leave it out"
            )
        check_score_loss(cfg.score_loss, name)
        self.auxiliary = cfg.auxiliary_loss_factor
        if self.auxiliary is None:
            self.auxiliary = ABSORBING_AUXILIARY if model_cfg.process == "absorbing" else 0.0
        if cfg.label_smoothing and name == "d3pm" and not self.auxiliary:
            logger.warning(
                "--label-smoothing has no effect without --auxiliary-loss-factor: leave it out"
            )
        if cfg.length_loss_factor is not None:
            self.length_factor = cfg.length_loss_factor
        elif name == "d3pm":
            self.length_factor = (
                ONE_STEP_LENGTH_FACTOR_WITH_AUXILIARY
                if self.auxiliary > 0
                else ONE_STEP_LENGTH_FACTOR
            )

    @classmethod
    def build_criterion(cls, cfg: Any, task: Any) -> TokenCriterion:
        """The criterion of the task's model, which has one of its own where its length grows."""
        return task.model_objective(cfg, task)

    def build_objective(self, model: Any) -> D3PM | MDLM | SEDD:
        """The objective that the model's configuration names."""
        process, steps, epsilon = model.process, model.diffusion_steps, self.cfg.label_smoothing
        objectives: dict[str, Callable[[], D3PM | MDLM | SEDD]] = {
            "d3pm": lambda: D3PM(process, steps, self.auxiliary, epsilon),
            "mdlm": lambda: MDLM(process, steps, epsilon),
            "sedd": lambda: SEDD(process, self.cfg.score_loss),
        }
        return objectives[model.cfg.objective]()
