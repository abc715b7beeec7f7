"""Choice of each target: the teacher's output, its next hypothesis, the raw target, or none."""

from array import array
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from difformer_plugin.distillation.plan import Plan
from difformer_plugin.errors import UserError
from difformer_plugin.storage.journal import Journal

ABSENT, OUTPUT, RAW, DROPPED = range(4)  # kinds of targets; absent: in another shard


class Targets:
    """The targets of a shard, read from its journal.

    Args:
        plan: of the shard.
        journal: with all batches of the plan.
        on_failure: what to do where the teacher failed: "keep" the raw target, "drop" the pair,
            or "replace" the output by the next hypothesis that is not a failure, if there is one.
    Attributes:
        kinds: ABSENT, OUTPUT, RAW or DROPPED for each sentence of the split, (lines,).
        failures: (sentence, cause, kind, output tokens), sorted by sentence.
        replaced: number of failures that were replaced.
    Raises:
        UserError: the journal lacks a sentence, or has one twice.
    """

    def __init__(self, plan: Plan, journal: Journal, on_failure: str) -> None:
        self.kinds = np.full(plan.lines, ABSENT, dtype=np.int8)
        self.failures: list[tuple[int, str, int, Sequence[int]]] = []
        self.replaced = 0
        self._tokens = array("i")  # of all outputs, concatenated
        self._start = np.zeros(plan.lines, dtype=np.int64)
        self._end = np.zeros(plan.lines, dtype=np.int64)
        without = DROPPED if on_failure == "drop" else RAW
        for record in journal.records():
            for sentence, output in zip(record["sentences"], record["outputs"], strict=True):
                failure = record["failures"].get(str(sentence))  # keys of JSON are strings
                if failure is None:
                    self._set(sentence, OUTPUT, output)
                    continue
                cause, instead = failure
                use = on_failure == "replace" and instead is not None
                self._set(sentence, OUTPUT if use else without, instead if use else ())
                self.replaced += use
                self.failures.append((sentence, cause, int(self.kinds[sentence]), output))
        for sentence, cause in plan.failures.items():
            self._set(sentence, without)
            self.failures.append((sentence, cause, without, ()))
        if np.count_nonzero(self.kinds) != plan.sentences():
            raise UserError(f"{journal.path} lacks sentences: remove it and run the command again")
        self.failures.sort()

    def _set(self, sentence: int, kind: int, output: Sequence[int] = ()) -> None:
        if self.kinds[sentence] != ABSENT:
            raise UserError(f"sentence {sentence} occurs twice: remove the unfinished folder")
        self.kinds[sentence] = kind
        self._start[sentence] = len(self._tokens)
        self._tokens.extend(output)
        self._end[sentence] = len(self._tokens)

    def rows(self) -> np.ndarray:
        """Numbers of the sentences that are kept, in ascending order."""
        return np.flatnonzero((self.kinds == OUTPUT) | (self.kinds == RAW))

    def output(self, sentence: int) -> Sequence[int] | None:
        """The new target of a sentence without EOS, or None if the raw target stays."""
        if self.kinds[sentence] == RAW:
            return None
        return self._tokens[self._start[sentence] : self._end[sentence]]

    def report(
        self,
        source_text: Callable[[int], str],
        output_text: Callable[[Sequence[int]], str],
        kept: str = "raw",
    ) -> Iterator[str]:
        """Yield the lines of the report of failures, without the heading.

        Args:
            source_text: from a sentence number to its source as text.
            output_text: from target tokens to text.
            kept: what a target that stays is called.
        """
        outcomes = {OUTPUT: "next hypothesis", RAW: kept, DROPPED: "dropped"}
        for sentence, cause, kind, output in self.failures:
            texts = source_text(sentence), output_text(output)
            yield "\t".join([str(sentence), cause, outcomes[kind], *texts]) + "\n"


def draw_pairs(lines: int, share: float, seed: int) -> np.ndarray:
    """Which pairs of the split are appended, (lines,) booleans; the same for every shard.

    Args:
        lines: number of sentences of the split.
        share: expected share of the pairs, 0 to 1.
    """
    return np.random.RandomState(seed).random_sample(lines) < share
