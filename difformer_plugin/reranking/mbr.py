"""Minimum Bayes risk: the candidate with the highest mean BLEU against the others (Sec. 3.3)."""

from collections.abc import Sequence
from itertools import permutations
from typing import Any, ClassVar

import torch
from fairseq.data import Dictionary
from fairseq.data.data_utils import post_process
from sacrebleu.metrics import BLEU
from torch.nn.utils.rnn import pad_sequence

from difformer_plugin.data.word_marks import mark_of
from difformer_plugin.reranking.ngram_bleu import mbr_scores, mbr_scores_of_ids
from difformer_plugin.reranking.reranker import Batch, Candidate, Scores, register_reranker


@register_reranker(unit=0.01)  # BLEU counts as a fraction
class MinimumBayesRisk:
    """Mean sentence BLEU, 0 to 100, of a candidate's words with each other one as the reference.

    Args:
        options: of decoding; `mbr_remove_bpe` is how subwords are joined to words, None for what
            the marks of the dictionary tell.
    """

    name: ClassVar[str] = "mbr"
    needs_teacher = False
    text_scores = staticmethod(mbr_scores)  # the benchmark swaps in the loop over pairs

    def __init__(self, options: Any, dictionary: Dictionary):
        self.mark, self.dictionary = options.mbr_remove_bpe or mark_of(dictionary), dictionary

    def check(self, models: Sequence[Any]) -> None:
        """It needs no other model."""

    def scores(self, batch: Batch) -> Scores:
        """Means over the other candidates, and all evidence."""
        texts, evidence = (
            [[self._words(c) for c in own] for own in candidates]
            for candidates in (batch.candidates, batch.evidence or [()] * len(batch.candidates))
        )
        return self.text_scores(texts, evidence=evidence)

    def race_scores(self, batch: Batch) -> Scores:
        """The same of subwords without BOS and EOS, counted where the tokens are."""
        flat = [c for own in batch.candidates for c in own]
        inner = [c.tokens[1:-1] for c in flat]  # BOS and EOS would match always
        sentence = [i for i, own in enumerate(batch.candidates) for _ in own]
        device = flat[0].tokens.device
        scores = mbr_scores_of_ids(
            pad_sequence(inner, batch_first=True),
            torch.tensor([len(tokens) for tokens in inner], device=device),
            torch.tensor(sentence, device=device),
        ).tolist()
        rest = iter(scores)
        return [[next(rest) for _ in own] for own in batch.candidates]

    def _words(self, candidate: Candidate) -> str:
        # A list, since iterating over a tensor is slow.
        words = self.dictionary.string(
            candidate.tokens.tolist(), extra_symbols_to_ignore={self.dictionary.bos()}
        )
        return post_process(words, self.mark)


def bleu_scores(candidates: list[str]) -> list[float]:
    """The scores of one sentence by a loop over all pairs of candidates.

    It is what `mbr_scores` is tested and measured against. Equal candidates are scored once; a
    single candidate has 0.

    Args:
        candidates: of one sentence, as detokenised or space-separated words.
    Returns:
        on sacrebleu's scale of 0 to 100.
    """
    bleu = BLEU(effective_order=True)
    distinct = set(candidates)
    pair = {
        (hypothesis, reference): bleu.sentence_score(hypothesis, [reference]).score
        for hypothesis, reference in permutations(sorted(distinct), 2)
    }
    pair |= {(text, text): bleu.sentence_score(text, [text]).score for text in distinct}
    return [
        sum(pair[text, other] for j, other in enumerate(candidates) if j != i)
        / max(len(candidates) - 1, 1)
        for i, text in enumerate(candidates)
    ]


def looped_scores(
    sentences: list[list[str]], evidence: list[list[str]] | None = None
) -> list[list[float]]:
    """`bleu_scores` of several sentences, as `mbr_scores` has it."""
    evidence = evidence or [[] for _ in sentences]
    return [bleu_scores([*own, *more])[: len(own)] for own, more in zip(sentences, evidence)]
