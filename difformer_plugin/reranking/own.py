"""The model's own confidence in its last prediction."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch

from difformer_plugin.reranking.reranker import Batch, Scores, register_reranker


@register_reranker
class OwnProbability:
    """Mean log-probability of a candidate's tokens in the rounding, in nats a token."""

    name: ClassVar[str] = "own"
    needs_teacher = False

    def __init__(self, options: Any, dictionary: Any):
        pass

    def check(self, models: Sequence[Any]) -> None:
        """It needs no other model."""

    def scores(self, batch: Batch) -> Scores:
        """The means, float32."""
        means = [c.log_probs.mean() for own in batch.candidates for c in own]
        rest = iter(torch.stack(means).tolist())  # one transfer from the device
        return [[next(rest) for _ in own] for own in batch.candidates]

    race_scores = scores
