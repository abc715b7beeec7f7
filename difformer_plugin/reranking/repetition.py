"""Repeated tokens, the commonest error of targets whose tokens are predicted independently."""

from collections.abc import Sequence
from typing import Any, ClassVar

from fairseq.data import Dictionary

from difformer_plugin.reranking.reranker import Batch, Scores, body, register_reranker


@register_reranker
class Repetition:
    """Minus the number of a candidate's tokens that equal the token before them."""

    name: ClassVar[str] = "repetition"
    needs_teacher = False

    def __init__(self, options: Any, dictionary: Dictionary):
        self.dictionary = dictionary

    def check(self, models: Sequence[Any]) -> None:
        """It needs no other model."""

    def scores(self, batch: Batch) -> Scores:
        """Numbers from 0 downwards."""
        bodies = [[body(c.tokens, self.dictionary) for c in own] for own in batch.candidates]
        return [[-float((tokens[1:] == tokens[:-1]).sum()) for tokens in own] for own in bodies]

    race_scores = scores
