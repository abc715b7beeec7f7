"""Difformer's objective: VLB mean squared error + anchor loss + length (Eq. 2, Sec. 3.3)."""

from dataclasses import dataclass
from typing import Any

import torch
from fairseq.criterions import register_criterion
from fairseq.dataclass import FairseqDataclass

from difformer_plugin.errors import UserError
from difformer_plugin.families.criterion import (
    LENGTH_FACTOR,
    DiffusionCriterion,
    check_label_smoothing,
)
from difformer_plugin.families.embeddings.anchor import SmoothedNLL
from difformer_plugin.options import option


@dataclass
class DifformerLossConfig(FairseqDataclass):
    label_smoothing: float = option(0.0, "epsilon of the label smoothing of the anchor loss")
    mse_factor: float = option(1.0, "weight of the mean squared error of z_0-hat")
    detach_z_0: bool = option(
        False, "stop the gradient of the mean squared error to the embeddings z_0"
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

    token_terms = ("mse", "anchor", "anchor_nll")
    sentence_terms = ("length",)
    loss_terms = ("mse", "anchor", "length")
    measures = ("ani", "dgs", "rescaling_factor")

    def __init__(self, cfg: Any, task: Any):
        super().__init__(task)
        check_label_smoothing(cfg.label_smoothing)
        if not cfg.mse_factor >= 0:
            raise UserError(f"--mse-factor must be at least 0, not {cfg.mse_factor:g}")
        if cfg.rounding_loss and cfg.mse_loss_only:
            raise UserError("--rounding-loss and --mse-loss-only exclude each other: choose one")
        self.cfg = cfg

    def forward(
        self, model: Any, sample: dict[str, Any], reduce: bool = True
    ) -> tuple[torch.Tensor, int, dict[str, Any]]:
        """The loss of a batch, summed over its target tokens, their number, and what to log."""
        output = model(target=sample["target"], **sample["net_input"])
        losses = self.terms(model.denoiser.output_projection, output)
        loss = sum(losses[name] for name in self.loss_terms)
        tokens, sentences = len(output.tokens), len(output.length_classes)
        logged = {name: losses[name].detach() * tokens for name in self.token_terms}
        logged |= {
            "length": losses["length"].detach() * sentences,
            "ntokens": tokens,
            "nsentences": sentences,
            "sample_size": tokens,
        }
        if not model.training:
            logged |= {**model.measures(), "measured": 1}
        return loss * tokens, tokens, logged

    def terms(self, output_projection: torch.nn.Linear, output: Any) -> dict[str, torch.Tensor]:
        """The terms of Eq. 2 and the length's loss, as float32 scalars.

        Args:
            output_projection: latents (N, D) -> logits (N, V), a linear map without bias.
            output: a DiffusionOutput.
        """
        z_0, z_0_hat = output.z_0, output.z_0_hat
        wanted = z_0.detach() if self.cfg.detach_z_0 else z_0
        mse = (z_0_hat.float() - wanted.float()).square().mean()
        if self.cfg.mse_loss_only:
            # Zero, but a gradient for each parameter, which distributed training counts on.
            anchor = nll = 0 * output_projection(z_0_hat[:1]).float().sum()
        else:
            rounded = z_0 if self.cfg.rounding_loss else z_0_hat
            costs: Any = SmoothedNLL(self.cfg.label_smoothing)
            anchor, nll = self.token_sums(
                costs, rounded, output_projection.weight, output.tokens
            ) / len(rounded)
        return {
            "mse": mse * self.cfg.mse_factor,
            "anchor": anchor,
            "anchor_nll": nll.detach(),
            "length": self.length_loss(output, "mean") * self.cfg.length_loss_factor,
        }
