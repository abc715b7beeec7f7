"""The candidates of a split, drawn once, and what rerankers say of them; kept in a journal."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from fairseq.data import Dictionary
from sacrebleu.metrics import BLEU

from difformer_plugin.decoding.generator import DiffusionGenerator
from difformer_plugin.decoding.text import to_text
from difformer_plugin.reranking.reranker import UNITS, Batch, Candidate, Reranker
from difformer_plugin.storage.journal import Journal

DIGITS = 6  # of log-probabilities in the journal


class DrawnCandidates:
    """Draws the candidates of batches, and scores them with rerankers.

    What the journal holds is neither drawn nor scored again, so that another reranker costs its own
    scores only.

    Args:
        generator: draws the candidates; all sentences get equally many.
        models: of `--path`.
        batches: fairseq's samples, with targets.
        rerankers: by the name under which the journal keeps their scores.
        journal: where candidates and scores are recorded.
        observe: called with the number of sentences after each batch.
    """

    def __init__(
        self,
        generator: DiffusionGenerator,
        models: Sequence[Any],
        batches: Sequence[dict[str, Any]],
        rerankers: Mapping[str, Reranker],
        journal: Journal,
        observe: Callable[[int], Any] = lambda sentences: None,
    ) -> None:
        self.generator, self.models, self.batches = generator, models, batches
        self.rerankers, self.journal = rerankers, journal
        self._records = {(each["batch"], each["what"]): each for each in journal.records()}
        for number, batch in enumerate(batches):
            self._complete(number, batch)
            observe(len(batch["id"]))

    def tokens(self) -> list[list[list[int]]]:
        """The tokens of each sentence's candidates."""
        numbers = range(len(self.batches))
        return [own for n in numbers for own in self._records[n, "candidates"]["tokens"]]

    def scores(self) -> np.ndarray:
        """The scores (S, n, M) of all M rerankers, in the units of `--rerank`."""
        numbers = range(len(self.batches))
        found = [
            [own for n in numbers for own in self._records[n, name]["scores"]]
            for name in self.rerankers
        ]
        units = [UNITS[reranker.name] for reranker in self.rerankers.values()]
        return np.stack([np.array(own) for own in found], axis=-1) * units

    @torch.no_grad()
    def _complete(self, number: int, sample: dict[str, Any]) -> None:
        """Draw and score what is missing of a batch."""
        source, memory = sample["net_input"]["src_tokens"], None
        if (number, "candidates") not in self._records:
            memory, drawn = self.generator.draw(self.models, source)
            self._append(
                number,
                "candidates",
                tokens=[[c.tokens.tolist() for c in own] for own in drawn],
                log_probs=[[_rounded(c.log_probs) for c in own] for own in drawn],
            )
        missing = [name for name in self.rerankers if (number, name) not in self._records]
        if not missing:
            return
        record = self._records[number, "candidates"]
        candidates = [
            [Candidate(torch.tensor(t), torch.tensor(p)) for t, p in zip(*own)]
            for own in zip(record["tokens"], record["log_probs"])
        ]
        if memory is None:
            memory = self.models[0].encoder(source)
        batch = Batch(self.models, source, memory, candidates)
        for name in missing:
            self._append(number, name, scores=self.rerankers[name].scores(batch))

    def _append(self, number: int, what: str, **values: Any) -> None:
        record = {"batch": number, "what": what, **values}
        self.journal.append(record)
        self._records[number, what] = record


def _rounded(log_probs: torch.Tensor) -> list[float]:
    return [round(x, DIGITS) for x in log_probs.tolist()]


def bleu_statistics(
    dictionary: Dictionary,
    tokens: Iterable[Sequence[Sequence[int]]],
    targets: Iterable[torch.Tensor],
    post_process: str,
) -> np.ndarray:
    """Statistics of BLEU of each candidate against its sentence's target, int64 (S, n, 10).

    Args:
        tokens: for each sentence its candidates.
        targets: for each sentence its target, (L,).
        post_process: how subwords are joined, a value of fairseq's --post-process.
    """
    metric, statistics = BLEU(tokenize="none", force=True), []
    for own, target in zip(tokens, targets, strict=True):
        reference = to_text(dictionary, target, post_process, escape_unk=True)
        texts = [to_text(dictionary, each, post_process) for each in own]
        found = {text: metric.corpus_score([text], [[reference]]) for text in set(texts)}
        statistics.append(
            [
                [*found[t].counts, *found[t].totals, found[t].sys_len, found[t].ref_len]
                for t in texts
            ]
        )
    return np.array(statistics)
