"""Difformer's objective: VLB mean squared error + anchor loss + length (Eq. 2, Sec. 3.3)."""

from dataclasses import dataclass

from fairseq.criterions import FairseqCriterion, register_criterion
from fairseq.dataclass import FairseqDataclass
from fairseq.logging import metrics
from torch.nn import functional as F

from difformer_plugin.errors import UserError
from difformer_plugin.families.embeddings.anchor import chunked_smoothed_nll, smoothed_nll
from difformer_plugin.networks.speedups import ENGINE
from difformer_plugin.options import option

TOKEN_TERMS = ("mse", "anchor", "anchor_nll")
LOSS_TERMS = ("mse", "anchor", "length")
EMBEDDING_MEASURES = ("ani", "dgs", "rescaling_factor")


@dataclass
class DifformerLossConfig(FairseqDataclass):
    label_smoothing: float = option(0.0, "epsilon of the label smoothing of the anchor loss")
    length_loss_factor: float = option(0.1, "weight of the length predictor's loss")
    rounding_loss: bool = option(
        False, "round z_0 and not its prediction: the loss of earlier work (Table 1, L_text)"
    )
    mse_loss_only: bool = option(
        False, "no anchor or rounding loss, so that embeddings collapse (Table 1, L_vlb)"
    )


@register_criterion("difformer_loss", dataclass=DifformerLossConfig)
class DifformerLoss(FairseqCriterion):
    """Each term is a mean over the batch; a batch weighs as many times as it has target tokens.

    So one batch gives the paper's loss, and several (gradient accumulation, several processes) its
    mean over all their tokens. Only the length's term, a mean over sentences, is then weighted by
    tokens instead. All terms are logged in nats.
    """

    means = ENGINE

    def __init__(self, cfg, task):
        super().__init__(task)
        if not 0 <= cfg.label_smoothing < 1:
            raise UserError(f"--label-smoothing must be in [0, 1), not {cfg.label_smoothing:g}")
        if cfg.rounding_loss and cfg.mse_loss_only:
            raise UserError("--rounding-loss and --mse-loss-only exclude each other: choose one")
        self.cfg = cfg

    def forward(self, model, sample, reduce=True):
        """The loss of a batch, summed over its target tokens, their number, and what to log."""
        output = model(target=sample["target"], **sample["net_input"])
        # through the wrappers of distributed training, if any
        losses = self.terms(model.denoiser.output_projection, output, sample["target"])
        loss = sum(losses[name] for name in LOSS_TERMS)
        tokens = int(output.mask.sum())
        sentences = len(output.mask)
        logged = {name: losses[name].detach() * tokens for name in TOKEN_TERMS}
        logged |= {
            "length": losses["length"].detach() * sentences,
            "ntokens": tokens,
            "nsentences": sentences,
            "sample_size": tokens,
        }
        if not model.training:
            logged |= {**model.measures(), "measured": 1}
        return loss * tokens, tokens, logged

    def terms(self, output_projection, output, target):
        """The terms of Eq. 2 and the length's loss, as float32 scalars.

        Args:
            output_projection: latents (N, D) -> logits (N, V), a linear map without bias.
            output: a DiffusionOutput; target: (B, L).
        """
        z_0, z_0_hat = output.z_0, output.z_0_hat
        mse = (z_0_hat.float() - z_0.float()).square().mean()
        if self.cfg.mse_loss_only:
            # nothing, but a gradient for each parameter, which distributed training counts on
            anchor = nll = 0 * output_projection(z_0_hat[:1]).float().sum()
        else:
            rounded = z_0 if self.cfg.rounding_loss else z_0_hat
            wanted, epsilon = target[output.mask], self.cfg.label_smoothing
            anchor, nll = (
                chunked_smoothed_nll(rounded, output_projection.weight, wanted, epsilon)
                if self.means.chunk
                else smoothed_nll(output_projection(rounded), wanted, epsilon)
            )
        length = F.cross_entropy(output.length_logits.float(), output.length_classes)
        return {
            "mse": mse,
            "anchor": anchor,
            "anchor_nll": nll,
            "length": length * self.cfg.length_loss_factor,
        }

    @classmethod
    def reduce_metrics(cls, logging_outputs):
        """Average what the processes logged: the length's term over sentences, others over tokens.

        The loss is the sum of these averages, so that it does not depend on the batches.
        """

        def total(key):
            return sum(log.get(key, 0) for log in logging_outputs)

        tokens, sentences = total("sample_size"), total("nsentences")
        metrics.log_derived(
            "loss", lambda meters: round(sum(float(meters[name].avg) for name in LOSS_TERMS), 4)
        )
        for name in TOKEN_TERMS:
            metrics.log_scalar(name, total(name) / tokens, tokens, round=4)
        metrics.log_scalar("length", total("length") / sentences, sentences, round=4)
        if total("measured"):
            for name in EMBEDDING_MEASURES:
                metrics.log_scalar(name, total(name) / total("measured"), round=4)

    @staticmethod
    def logging_outputs_can_be_summed():
        """All that is logged is a sum."""
        return True
