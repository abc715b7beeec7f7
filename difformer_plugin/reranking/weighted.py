"""A weighted sum of rerankers, which is a reranker too: `--rerank mbr=1,teacher=0.5,length=0.1`."""

from collections.abc import Sequence
from typing import Any, ClassVar

from fairseq.data import Dictionary

from difformer_plugin.errors import UserError
from difformer_plugin.reranking import registered  # noqa: F401
from difformer_plugin.reranking.reranker import RERANKERS, UNITS, Batch, Reranker, Scores


def parse_weights(text: str, option: str = "--rerank") -> dict[str, float]:
    """Weights by the rerankers' names, from `NAME=WEIGHT,...`.

    Args:
        option: what messages call it.
    Raises:
        UserError: it is not of this form, or names what is no reranker.
    """
    weights: dict[str, float] = {}
    for part in text.split(","):
        name, equals, weight = part.strip().partition("=")
        if name not in RERANKERS:
            raise UserError(
                f"{option} {text}: no such reranker as '{name}'; there are "
                f"{', '.join(sorted(RERANKERS))}"
            )
        if name in weights:
            raise UserError(f"{option} {text}: {name} is there twice; leave one out")
        try:
            weights[name] = float(weight) if equals else 1.0
        except ValueError:
            raise UserError(
                f"{option} {text}: the weight of {name} must be a number, not '{weight}'"
            ) from None
        if not abs(weights[name]) < float("inf"):
            raise UserError(f"{option} {text}: the weight of {name} must be finite, not {weight}")
    return weights


class WeightedRerankers:
    """The sum of other rerankers' scores times their weights.

    Scores are in nats (per token, for the teacher's and the model's own), and MBR's BLEU counts as
    a fraction.

    Args:
        options: DecodingOptions; `rerank` has the weights.
    """

    name: ClassVar[str] = "weighted"

    def __init__(self, options: Any, dictionary: Dictionary):
        weights = parse_weights(options.rerank)
        self.parts: list[tuple[float, Reranker]] = [
            (weight * UNITS[name], RERANKERS[name](options, dictionary))
            for name, weight in weights.items()
        ]
        self.needs_teacher = any(part.needs_teacher for _, part in self.parts)

    def check(self, models: Sequence[Any]) -> None:
        """The models must be those that the parts need."""
        for _, part in self.parts:
            part.check(models)

    def scores(self, batch: Batch) -> Scores:
        """Sums of the parts' scores."""
        return self._sum([(weight, part.scores(batch)) for weight, part in self.parts])

    def race_scores(self, batch: Batch) -> Scores:
        """Sums of the parts' scores in a race."""
        return self._sum([(weight, part.race_scores(batch)) for weight, part in self.parts])

    @staticmethod
    def _sum(weighted: list[tuple[float, Scores]]) -> Scores:
        weights = [weight for weight, _ in weighted]
        return [
            [
                sum(weight * score for weight, score in zip(weights, parts))
                for parts in zip(*sentence)
            ]
            for sentence in zip(*(scores for _, scores in weighted))
        ]
