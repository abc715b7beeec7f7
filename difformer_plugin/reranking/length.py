"""The length model as a reranker."""

from collections.abc import Sequence
from typing import Any, ClassVar

from fairseq.data import Dictionary

from difformer_plugin.errors import UserError
from difformer_plugin.reranking.reranker import Batch, Scores, register_reranker

UNKNOWN = -1e4  # the log-probability of a length that the predictor has no class for


@register_reranker
class LengthProbability:
    """log p(length | source) of a candidate under the model's length predictor, in nats."""

    name: ClassVar[str] = "length"
    needs_teacher = False

    def __init__(self, options: Any, dictionary: Dictionary):
        pass

    def check(self, models: Sequence[Any]) -> None:
        """The diffusion model must predict lengths."""
        if not models[0].tries_lengths:
            raise UserError(f"--rerank length: {models[0].title} predicts no length; leave it out")

    def scores(self, batch: Batch) -> Scores:
        """One log-probability a candidate; UNKNOWN for a length without a class."""
        predictor = batch.models[0].length_predictor
        log_probs = predictor(batch.memory).float().log_softmax(-1)
        lengths = predictor.lengths(batch.memory)
        scores = []
        for own, known, candidates in zip(log_probs, lengths, batch.candidates):
            found = dict(zip(known.tolist(), own.tolist()))
            scores.append([found.get(len(c.tokens), UNKNOWN) for c in candidates])
        return scores

    race_scores = scores
