"""Sequence-level knowledge distillation: translate a split, with a journal of finished batches.

The targets of a training set are replaced by the teacher's translations of its sources (Kim and
Rush, 2016).
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

from sacrebleu.metrics import BLEU

from difformer_plugin.distillation.failures import failure
from difformer_plugin.distillation.tally import Tally, tally_of_record
from difformer_plugin.storage.journal import Journal

Hypotheses = list[list[int]]  # of one sentence, the best first, without BOS and EOS
Translate = Callable[[list[int]], list[tuple[Hypotheses, int | None]]]


def decode(
    journal: Journal,
    batches: Mapping[int, list[int]],
    translate: Translate,
    pairs: Callable[[int], list[list[int]]],
    words: Callable[[list[int], bool], str],
    observe: Callable[[Tally, bool], None],
) -> None:
    """Translate the batches that the journal does not have yet, and append each when it is done.

    Args:
        journal: with a header.
        batches: batch number -> sentence numbers.
        translate: as `Teacher.translate`.
        pairs: from a sentence number to its source and raw target, without BOS and EOS.
        words: from (target tokens, whether to escape <unk>) to text with subwords joined.
        observe: called with the tally of each batch, and whether the journal had it already.
    """
    done = set()
    for record in journal.records():
        done.add(record["batch"])
        observe(tally_of_record(record), True)
    for number, sentences in batches.items():
        if number not in done:
            record = _decode_batch(number, sentences, translate, pairs, words)
            journal.append(record)
            observe(tally_of_record(record), False)


def _decode_batch(
    number: int,
    sentences: list[int],
    translate: Translate,
    pairs: Callable[[int], list[list[int]]],
    words: Callable[[list[int], bool], str],
) -> dict[str, Any]:
    """Translate a batch; the record holds all that the later choice of targets needs."""
    started = time.perf_counter()
    translations = translate(sentences)
    seconds = time.perf_counter() - started
    failures = {}
    texts = []
    for sentence, (candidates, limit) in zip(sentences, translations, strict=True):
        source, target = pairs(sentence)
        cause = failure(candidates[0], source, target, limit)
        if cause is not None:
            good = (c for c in candidates[1:] if failure(c, source, target, limit) is None)
            failures[sentence] = cause, next(good, None)
        texts.append((words(candidates[0], False), words(target, True)))
    outputs, references = zip(*texts)
    score = BLEU(tokenize="none", force=True).corpus_score(outputs, [references])
    return {
        "batch": number,
        "sentences": sentences,
        "outputs": [candidates[0] for candidates, _ in translations],
        "failures": failures,
        "seconds": seconds,
        "bleu": [*score.counts, *score.totals, score.sys_len, score.ref_len],
    }
