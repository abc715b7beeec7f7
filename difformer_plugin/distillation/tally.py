"""Counts of a distillation, which add up over batches and shards."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sacrebleu.metrics import BLEU
from sacrebleu.metrics.bleu import BLEUScore


@dataclass
class Tally:
    """Sums over the decoded sentences.

    Attributes:
        sentences: sentences that were translated.
        tokens: tokens of the chosen hypotheses, EOS included.
        seconds: time spent on decoding.
        bleu: statistics of corpus BLEU against the raw targets: 4 matches, 4 totals, 2 lengths.
        failures: cause -> number of sentences.
        choice: sums of what the choice among hypotheses counts (distillation/choice.py).
        replaced: failures that were replaced by the next hypothesis.
        dropped: failures whose pair was removed.
        raw: raw or, with `--self`, present pairs that were appended.
        pairs: pairs written in all.
    """

    sentences: int = 0
    tokens: int = 0
    seconds: float = 0.0
    bleu: list[int] = field(default_factory=lambda: [0] * 10)
    failures: Counter = field(default_factory=Counter)
    choice: Counter = field(default_factory=Counter)
    replaced: int = 0
    dropped: int = 0
    raw: int = 0
    pairs: int = 0

    def add(self, other: Mapping[str, Any]) -> None:
        """Add the sums of another tally, given as a dict of its fields."""
        for name, value in other.items():
            if name == "bleu":
                self.bleu = [a + b for a, b in zip(self.bleu, value, strict=True)]
            elif name in ("failures", "choice"):
                vars(self)[name].update(value)
            else:
                setattr(self, name, getattr(self, name) + value)

    def score(self) -> BLEUScore:
        """Corpus BLEU of the chosen hypotheses against the raw targets, on tokenised text."""
        correct, total, lengths = self.bleu[:4], self.bleu[4:8], self.bleu[8:]
        return BLEU.compute_bleu(correct, total, *lengths, smooth_method="exp")


def tally_of_record(record: Mapping[str, Any]) -> Tally:
    """The tally of one batch, from its record in the journal."""
    tally = Tally(bleu=record["bleu"], seconds=record["seconds"])
    tally.sentences = len(record["sentences"])
    tally.tokens = sum(len(tokens) + 1 for tokens in record["outputs"])
    tally.failures.update(cause for cause, _ in record["failures"].values())
    tally.choice.update(record.get("choice", {}))  # older journals have none
    return tally
