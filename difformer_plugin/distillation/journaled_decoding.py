"""Sequence-level knowledge distillation: translate a split, with a journal of finished batches.

The targets of a training set are replaced by the teacher's translations of its sources (Kim and
Rush, 2016).
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from sacrebleu.metrics import BLEU

from difformer_plugin.distillation.choice import Choice, Words
from difformer_plugin.distillation.tally import Tally, tally_of_record
from difformer_plugin.storage.journal import Journal

Choose = Callable[[list[int]], list[Choice]]  # from sentence numbers to their new targets


def decode(
    journal: Journal,
    batches: Mapping[int, list[int]],
    choose: Choose,
    reference: Callable[[int], list[int]],
    words: Words,
    observe: Callable[[Tally, bool], None],
) -> None:
    """Translate the batches that the journal does not have yet, and append each when it is done.

    Args:
        journal: with a header.
        batches: batch number -> sentence numbers.
        choose: translates a batch and chooses the new targets.
        reference: from a sentence number to its raw target, without BOS and EOS.
        words: from (target tokens, whether to escape <unk>) to text with subwords joined.
        observe: called with the tally of each batch, and whether the journal had it already.
    """
    done = set()
    for record in journal.records():
        done.add(record["batch"])
        observe(tally_of_record(record), True)
    for number, sentences in batches.items():
        if number not in done:
            record = _decode_batch(number, sentences, choose, reference, words)
            journal.append(record)
            observe(tally_of_record(record), False)


def _decode_batch(
    number: int,
    sentences: list[int],
    choose: Choose,
    reference: Callable[[int], list[int]],
    words: Words,
) -> dict[str, Any]:
    """Translate a batch; the record holds all that the later choice of targets needs."""
    started = time.perf_counter()
    choices = choose(sentences)
    seconds = time.perf_counter() - started
    counts: Counter = Counter()
    for choice in choices:
        counts.update(choice.counts)
    outputs = [words(choice.output, False) for choice in choices]
    references = [words(reference(sentence), True) for sentence in sentences]
    score = BLEU(tokenize="none", force=True).corpus_score(outputs, [references])
    failed = {
        i: choice.failure for i, choice in zip(sentences, choices, strict=True) if choice.failure
    }
    return {
        "batch": number,
        "sentences": sentences,
        "outputs": [choice.output for choice in choices],
        "failures": failed,
        "choice": counts,
        "seconds": seconds,
        "bleu": [*score.counts, *score.totals, score.sys_len, score.ref_len],
    }
