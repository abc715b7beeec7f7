"""The loss of discrete diffusion: its objective and the length, with the bound in validation."""

from dataclasses import dataclass
from typing import Optional

import torch
from fairseq.criterions import FairseqCriterion, register_criterion
from fairseq.dataclass import FairseqDataclass
from fairseq.logging import metrics
from torch.nn import functional as F

from difformer_plugin.diffusion.categorical.objectives import D3PM, MDLM, SEDD
from difformer_plugin.diffusion.insertion.process import bregman, path_kl
from difformer_plugin.errors import UserError
from difformer_plugin.families.chunked_sums import by_autograd, chunked_sums
from difformer_plugin.families.tokens.config import steps
from difformer_plugin.networks.speedups import ENGINE
from difformer_plugin.options import option

AUXILIARY = 0.01  # of the absorbing process (D3PM, Sec. 5.1)
LENGTH_FACTOR = 0.1
# a small part of the loss of one step, which is larger where the auxiliary term is in it
ONE_STEP_LENGTH_FACTORS = {True: 1e-3, False: 1e-4}
# means over words and over sentences; fairseq does not show what begins with _
WORD_TERMS, LENGTH_TERMS = ("diffusion", "insertions", "bound"), ("length", "_length_loss")
LOSS_TERMS = ("diffusion", "insertions", "_length_loss")


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
    length_loss_factor: Optional[float] = option(
        None,
        "weight of the length predictor's loss; default: 0.1, and for d3pm, whose loss is that of "
        "one step, 0.001 with the auxiliary cross-entropy and 0.0001 without",
    )
    bound_times: int = option(
        4, "times, evenly spaced, over which validation averages a sentence's bound"
    )


@register_criterion("discrete_diffusion_loss", dataclass=DiscreteDiffusionLossConfig)
class DiscreteDiffusionLoss(FairseqCriterion):
    """The objective's mean over words, and the length's over sentences; all in nats.

    A batch weighs as many times as it has words, which are a target's tokens without its frame.
    """

    means = ENGINE

    def __init__(self, cfg, task):
        super().__init__(task)
        if not 0 <= cfg.label_smoothing < 1:
            raise UserError(f"--label-smoothing must be in [0, 1), not {cfg.label_smoothing:g}")
        for name in ("auxiliary_loss_factor", "length_loss_factor"):
            value = getattr(cfg, name)
            if value is not None and not value >= 0:
                raise UserError(f"--{name.replace('_', '-')} must be at least 0, not {value:g}")
        if cfg.bound_times < 1:
            raise UserError(f"--bound-times must be at least 1, not {cfg.bound_times}")
        self.cfg, self.objective = cfg, None
        self._check_objective(task.model_cfg)
        self.auxiliary = cfg.auxiliary_loss_factor
        if self.auxiliary is None:
            self.auxiliary = AUXILIARY if task.model_cfg.process == "absorbing" else 0.0
        self.length_factor = cfg.length_loss_factor
        if self.length_factor is None and task.model_cfg.objective == "d3pm":
            self.length_factor = ONE_STEP_LENGTH_FACTORS[self.auxiliary > 0]
        elif self.length_factor is None:
            self.length_factor = LENGTH_FACTOR

    def _check_objective(self, model_cfg):
        objective = model_cfg.objective
        if self.cfg.auxiliary_loss_factor is not None and objective != "d3pm":
            raise UserError(
                f"--auxiliary-loss-factor belongs to --objective d3pm, not to {objective}: leave "
                "it out"
            )
        if self.cfg.label_smoothing and objective == "sedd":
            raise UserError(
                "--label-smoothing: score entropy has no labels to smooth; leave it out"
            )
        if self.cfg.length_loss_factor is not None and objective == "flexible":
            raise UserError(
                "--length-loss-factor: --objective flexible predicts no length; leave it out"
            )

    def _objective(self, model):
        cfg, epsilon = model.cfg, self.cfg.label_smoothing
        if cfg.objective == "d3pm":
            return D3PM(model.process, steps(cfg), self.auxiliary, epsilon)
        if cfg.objective == "sedd":
            return SEDD(model.process)
        # the masks of the flexible form are weighted as those of MDLM
        return MDLM(model.process, steps(cfg), epsilon)

    def forward(self, model, sample, reduce=True):
        """The loss of a batch, summed over its words, their number, and what to log."""
        # through the wrappers of distributed training, if any
        self.objective = self.objective or self._objective(model)
        parts, logged = 1 if model.training else self.cfg.bound_times, {}
        for i in range(parts):
            output = model(target=sample["target"], part=(i, parts), **sample["net_input"])
            words, sentences = int(output.words.sum()), len(output.words)
            terms = self.terms(model, output)
            loss = terms["diffusion"] + terms.get("insertions", 0)
            if "length" in terms:
                terms["_length_loss"] = self.length_factor * terms["length"]
                loss = loss + terms["_length_loss"] * words / sentences
            for name, value in terms.items():
                logged[name] = logged.get(name, 0) + value.detach() / parts
        size = max(words, 1)
        return (
            loss,
            size,
            logged
            | {
                "ntokens": words,
                "nsentences": sentences,
                "sample_size": size,
            },
        )

    def terms(self, model, output):
        """Sums over a batch, float32: what is trained, the bound, the length's NLL."""
        here = slice(None)
        if self.objective.masks_only:
            here = (output.x_t == self.objective.process.mask).nonzero()[:, 0]
        predictions, table = output.predictions[here], model.rounding(model.denoiser)
        columns = [column[here] for column in (output.x_0, output.x_t, output.s, output.t)]
        loss, bound = (
            chunked_sums(by_autograd(self.objective), predictions, table, *columns)
            if self.means.chunk
            else self.objective(F.linear(predictions, table).float(), *columns).sum(0)
        )
        # so that each parameter has a gradient, which distributed training counts on
        terms = {"diffusion": loss + 0 * output.predictions[:1].sum(), "bound": bound.detach()}
        if output.gaps is not None:
            missing, expected, t = output.gaps.missing, output.gaps.log_expected, output.gaps.t
            weight = self.objective.process.schedule.hazard(t)
            terms["insertions"] = (weight * bregman(missing, expected)).sum().float()
            with torch.no_grad():
                terms["bound"] += (weight * path_kl(missing, expected)).sum().float()
        else:
            terms["length"] = F.cross_entropy(
                output.length_logits.float(), output.length_classes, reduction="sum"
            )
        return terms

    @classmethod
    def reduce_metrics(cls, logging_outputs):
        """Average what the processes logged: the length over sentences, all else over words.

        The loss is the sum of these averages, so that it does not depend on the batches.
        """

        def total(key):
            return sum(log.get(key, 0) for log in logging_outputs)

        words, sentences = total("sample_size"), total("nsentences")
        metrics.log_derived(
            "loss",
            lambda meters: round(sum(float(meters[n].avg) for n in LOSS_TERMS if n in meters), 4),
        )
        for names, count in ((WORD_TERMS, words), (LENGTH_TERMS, sentences)):
            for name in names:
                if any(name in log for log in logging_outputs):
                    metrics.log_scalar(name, total(name) / count, count, round=4)

    @staticmethod
    def logging_outputs_can_be_summed():
        """All that is logged is a sum."""
        return True
