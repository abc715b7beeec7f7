"""Sequence-level knowledge distillation: translate a split, with a journal of finished batches.

The targets of a training set are replaced by the teacher's translations of its sources (Kim and
Rush, 2016).
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from sacrebleu.metrics import BLEU

from difformer_plugin.distillation.choice import Choose, Words
from difformer_plugin.distillation.tally import Tally, tally_of_record
from difformer_plugin.storage.journal import Journal

Hypotheses = list[list[int]]  # of one sentence, the best first, without BOS and EOS
Translate = Callable[[list[int]], list[tuple[Hypotheses, int | None]]]


def decode(
    journal: Journal,
    batches: Mapping[int, list[int]],
    translate: Translate,
    pairs: Callable[[int], list[list[int]]],
    words: Words,
    choose: Choose,
    observe: Callable[[Tally, bool], None],
) -> None:
    """Translate the batches that the journal does not have yet, and append each when it is done.

    Args:
        journal: with a header.
        batches: batch number -> sentence numbers.
        translate: as `Teacher.translate`.
        pairs: from a sentence number to its source and raw target, without BOS and EOS.
        words: from (target tokens, whether to escape <unk>) to text with subwords joined.
        choose: picks the output of a sentence among the teacher's hypotheses.
        observe: called with the tally of each batch, and whether the journal had it already.
    """
    done = set()
    for record in journal.records():
        done.add(record["batch"])
        observe(tally_of_record(record), True)
    for number, sentences in batches.items():
        if number not in done:
            record = _decode_batch(number, sentences, translate, pairs, words, choose)
            journal.append(record)
            observe(tally_of_record(record), False)


def _decode_batch(
    number: int,
    sentences: list[int],
    translate: Translate,
    pairs: Callable[[int], list[list[int]]],
    words: Words,
    choose: Choose,
) -> dict[str, Any]:
    """Translate a batch; the record holds all that the later choice of targets needs."""
    started = time.perf_counter()
    translations = translate(sentences)
    seconds = time.perf_counter() - started
    choices, texts, counts = [], [], Counter()
    for sentence, (hypotheses, limit) in zip(sentences, translations, strict=True):
        source, target = pairs(sentence)
        choice = choose(hypotheses, source, target, limit, words)
        choices.append(choice)
        counts.update(choice.counts)
        texts.append((words(choice.output, False), words(target, True)))
    outputs, references = zip(*texts)
    score = BLEU(tokenize="none", force=True).corpus_score(outputs, [references])
    failed = {i: choice.failure for i, choice in zip(sentences, choices) if choice.failure}
    return {
        "batch": number,
        "sentences": sentences,
        "outputs": [choice.output for choice in choices],
        "failures": failed,
        "choice": counts,
        "seconds": seconds,
        "bleu": [*score.counts, *score.totals, score.sys_len, score.ref_len],
    }
