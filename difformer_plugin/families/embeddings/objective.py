"""Difformer's objective: VLB mean squared error + anchor loss + length (Eq. 2, Sec. 3.3)."""

import logging
from dataclasses import dataclass
from typing import Any, Optional

import torch
from fairseq.criterions import register_criterion
from fairseq.dataclass import FairseqDataclass

from difformer_plugin.errors import UserError
from difformer_plugin.families.chunked_sums import Weighted
from difformer_plugin.families.criterion import (
    LENGTH_FACTOR,
    DiffusionCriterion,
    check_label_smoothing,
)
from difformer_plugin.families.embeddings.anchor import SmoothedNLL
from difformer_plugin.families.embeddings.soft_labels import SoftenedNLL, SoftLabels
from difformer_plugin.options import option

logger = logging.getLogger(__name__)
SOFT_LABEL_WEIGHT = 0.5  # the default


@dataclass
class DifformerLossConfig(FairseqDataclass):
    label_smoothing: float = option(0.0, "epsilon of the label smoothing of the anchor loss")
    mse_factor: float = option(1.0, "weight of the mean squared error of z_0-hat")
    weighted_loss: bool = option(
        False,
        "weight squared errors as the variational bound does (Ho et al., 2020, Eq. 8 and 12); "
        "otherwise they are those of what --prediction names, all times alike",
    )
    detach_z_0: bool = option(
        False, "stop the gradient of the mean squared error to the embeddings z_0"
    )
    soft_labels: Optional[str] = option(
        None, "checkpoint of a teacher whose distributions are labels of the anchor loss"
    )
    soft_label_weight: float = option(
        SOFT_LABEL_WEIGHT,
        "weight of the teacher's distribution against the smoothed label, with --soft-labels",
    )
    length_loss_factor: float = option(LENGTH_FACTOR, "weight of the length predictor's loss")
    rounding_loss: bool = option(
        False, "round z_0 and not its prediction: the loss of earlier work (Table 1, L_text)"
    )
    mse_loss_only: bool = option(
        False, "no anchor or rounding loss, so that embeddings collapse (Table 1, L_vlb)"
    )


@register_criterion("difformer_loss", dataclass=DifformerLossConfig)
class DifformerLoss(DiffusionCriterion):
    """L_vlb + L_anchor + the length's loss, each a mean over the batch.

    One batch gives the paper's loss. With several, the length's term, a mean over sentences, is
    weighted by tokens in training.
    """

    token_terms = ("mse", "_mse_loss", "anchor", "anchor_nll")
    sentence_terms = ("length", "_length_loss")
    loss_terms = ("_mse_loss", "anchor", "_length_loss")
    measures = ("ani", "dgs", "rescaling_factor")

    def __init__(self, cfg: Any, task: Any):
        super().__init__(task)
        check_label_smoothing(cfg.label_smoothing)
        if not cfg.mse_factor >= 0:
            raise UserError(f"--mse-factor must be at least 0, not {cfg.mse_factor:g}")
        if cfg.rounding_loss and cfg.mse_loss_only:
            raise UserError("--rounding-loss and --mse-loss-only exclude each other: choose one")
        if cfg.mse_loss_only and cfg.label_smoothing:
            logger.warning("--label-smoothing has no effect with --mse-loss-only: leave it out")
        if not 0 <= cfg.soft_label_weight <= 1:
            raise UserError(f"--soft-label-weight must be in [0, 1], not {cfg.soft_label_weight:g}")
        if not cfg.soft_labels and cfg.soft_label_weight != SOFT_LABEL_WEIGHT:
            raise UserError(
                "--soft-label-weight has no effect without --soft-labels: give both or neither"
            )
        if cfg.soft_labels and (cfg.rounding_loss or cfg.mse_loss_only):
            raise UserError(
                "--soft-labels are of the anchor loss: omit --rounding-loss and --mse-loss-only"
            )
        self.cfg = cfg
        self.labels: SoftLabels | None = None

    def forward(
        self, model: Any, sample: dict[str, Any], reduce: bool = True
    ) -> tuple[torch.Tensor, int, dict[str, Any]]:
        """The loss of a batch, summed over its target tokens, their number, and what to log."""
        output = model(target=sample["target"], **sample["net_input"])
        states = self.teacher_states(sample) if model.training and self.cfg.soft_labels else None
        weights = self.squared_error_weights(model, output)
        losses = self.terms(model.denoiser.output_projection, output, states, weights)
        if output.drawn is not None:
            model.importance.record(output.drawn.buckets, losses["by_target"])
        loss = sum(losses[name] for name in self.loss_terms)
        tokens, sentences = len(output.tokens), len(output.length_classes)
        logged = {name: losses[name].detach() * tokens for name in self.token_terms}
        logged |= {name: losses[name].detach() * sentences for name in self.sentence_terms}
        logged |= {
            "ntokens": tokens,
            "nsentences": sentences,
            "sample_size": tokens,
        }
        if not model.training:
            logged |= {**model.measures(), "measured": 1}
        return loss * tokens, tokens, logged

    def squared_error_weights(self, model: Any, output: Any) -> torch.Tensor | None:
        """What turns squared errors of z_0-hat into those that count, (N, 1); None for 1."""
        weights = model.squared_error_weights(self.cfg.weighted_loss, output.t, output.layout)
        return None if weights is None else weights[output.predicted].float()

    def token_weights(self, output: Any) -> torch.Tensor | None:
        """What all costs of tokens are multiplied by, (N,); None for 1."""
        return None if output.drawn is None else output.drawn.weights[output.rows]

    def teacher_states(self, sample: dict[str, Any]) -> torch.Tensor:
        """The hidden states of the teacher of --soft-labels, (B L, C)."""
        if self.labels is None:  # validation and decoding do without it
            self.labels = SoftLabels(self.cfg.soft_labels, self.task)
        states = self.labels.states(sample["net_input"]["src_tokens"], sample["target"])
        return states.flatten(0, 1)

    def terms(
        self,
        output_projection: torch.nn.Linear,
        output: Any,
        teacher_states: torch.Tensor | None = None,
        weights: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """The terms of Eq. 2 and the length's loss, as float32 scalars; see `loss_terms`.

        What depends on times is weighted if they were drawn by importance.

        Args:
            output_projection: latents (N, D) -> logits (N, V), a linear map without bias.
            output: a DiffusionOutput.
            teacher_states: (B L, C), for soft labels.
            weights: (N, 1), of the squared errors.
        Returns:
            the terms by name; if times were drawn by importance also `by_target` (n,): what each
            target costs without its weight, a mean over its tokens.
        """
        z_0, z_0_hat = output.z_0, output.z_0_hat
        wanted = z_0.detach() if self.cfg.detach_z_0 else z_0
        errors = (z_0_hat.float() - wanted.float()).square()
        if weights is not None:
            errors = weights * errors
        of_tokens = self.token_weights(output)
        mse = (errors if of_tokens is None else of_tokens[:, None] * errors).mean()
        if self.cfg.mse_loss_only:
            # Zero, but a gradient for each parameter, which distributed training counts on.
            anchor = nll = 0 * output_projection(z_0_hat[:1]).float().sum()
        else:
            predicted = z_0_hat if output.rounded is None else output.rounded
            rounded = z_0 if self.cfg.rounding_loss else predicted
            costs: Any = SmoothedNLL(self.cfg.label_smoothing)
            columns = [output.tokens]
            if teacher_states is not None:
                weight = self.cfg.soft_label_weight
                costs = SoftenedNLL(self.cfg.label_smoothing, weight, self.labels)
                columns.append(teacher_states[output.places])
            if of_tokens is not None:
                costs, columns = Weighted(costs), [of_tokens, *columns]
            sums = self.token_sums(costs, rounded, output_projection.weight, *columns)
            anchor, nll = sums / len(rounded)
        length = self.length_loss(output, "mean")
        terms = {
            "mse": mse.detach(),
            "_mse_loss": mse * self.cfg.mse_factor,
            "anchor": anchor,
            "anchor_nll": nll.detach(),
            "length": length.detach(),
            "_length_loss": length * self.cfg.length_loss_factor,
        }
        if output.drawn is not None:
            by_token = self.cfg.mse_factor * errors.detach().mean(-1)
            if not self.cfg.mse_loss_only:
                by_token = by_token + torch.cat(costs.unweighted)
            terms["by_target"] = means_by_row(by_token, output.rows, len(output.drawn.buckets))
        return terms


def means_by_row(costs: torch.Tensor, rows: torch.Tensor, count: int) -> torch.Tensor:
    """Means of costs (N,) over the tokens of each of `count` rows; 0 where there is none.

    Args:
        rows: int64 (N,), the row of each token.
    """
    sums = costs.new_zeros(count).index_add_(0, rows, costs)
    return sums / rows.bincount(minlength=count).clamp(min=1)
