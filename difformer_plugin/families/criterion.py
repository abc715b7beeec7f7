"""What the criteria of all families share: counting, logging, the length's loss, chunked sums."""

from typing import Any, ClassVar

import torch
from fairseq.criterions import FairseqCriterion
from fairseq.logging import metrics
from torch.nn import functional as F

from difformer_plugin.errors import UserError
from difformer_plugin.families.chunked_sums import chunked_sums

LENGTH_FACTOR = 0.1  # default weight of the length's loss


def check_label_smoothing(epsilon: float) -> None:
    """Raise a UserError unless epsilon is in [0, 1)."""
    if not 0 <= epsilon < 1:
        raise UserError(f"--label-smoothing must be in [0, 1), not {epsilon:g}")


class DiffusionCriterion(FairseqCriterion):
    """A loss that is a sum of terms, each a mean over tokens or over sentences, in nats.

    A batch is weighted by its number of target tokens, so that gradient accumulation and several
    processes give the mean over all their tokens. Criteria log sums; what fairseq shows are their
    means over everything logged, which so do not depend on the batches.

    Attributes:
        token_terms: names of terms that are means over tokens.
        sentence_terms: names of terms that are means over sentences; fairseq hides those that
            begin with an underscore.
        loss_terms: names of the terms whose sum is the loss.
        measures: names of what validation logs of the model itself.
    """

    token_terms: ClassVar[tuple[str, ...]]
    sentence_terms: ClassVar[tuple[str, ...]]
    loss_terms: ClassVar[tuple[str, ...]]
    measures: ClassVar[tuple[str, ...]] = ()
    token_sums = staticmethod(chunked_sums)  # the benchmark swaps it

    @staticmethod
    def length_loss(output: Any, reduction: str) -> torch.Tensor:
        """Negative log-likelihood of the length classes, a float32 scalar in nats."""
        return F.cross_entropy(
            output.length_logits.float(), output.length_classes, reduction=reduction
        )

    @classmethod
    def reduce_metrics(cls, logging_outputs: list[dict[str, Any]]) -> None:
        """Average what the processes logged."""

        def total(key: str) -> Any:
            return sum(log.get(key, 0) for log in logging_outputs)

        def logged(key: str) -> bool:
            return any(key in log for log in logging_outputs)

        tokens, sentences = total("sample_size"), total("nsentences")
        metrics.log_derived(
            "loss",
            lambda meters: round(
                sum(float(meters[n].avg) for n in cls.loss_terms if n in meters), 4
            ),
        )
        for names, count in ((cls.token_terms, tokens), (cls.sentence_terms, sentences)):
            for name in filter(logged, names):
                metrics.log_scalar(name, total(name) / count, count, round=4)
        if total("measured"):
            for name in cls.measures:
                metrics.log_scalar(name, total(name) / total("measured"), round=4)

    @staticmethod
    def logging_outputs_can_be_summed() -> bool:
        """All that is logged is a sum."""
        return True
