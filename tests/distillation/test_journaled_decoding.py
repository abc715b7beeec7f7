"""Journaled decoding without a model: the journal after kill -9, and the tally."""

import multiprocessing
import os
import random
import signal
import time

import numpy as np
import pytest
from fake_teacher import choose, hypotheses, reference, words
from sacrebleu.metrics import BLEU

from difformer_plugin.distillation.failures import EMPTY
from difformer_plugin.distillation.journaled_decoding import decode
from difformer_plugin.distillation.plan import make_plan
from difformer_plugin.distillation.tally import Tally, tally_of_record
from difformer_plugin.storage.journal import Journal

LINES = 101  # no multiple of 8


@pytest.fixture
def lengths():
    return np.random.default_rng(5).integers(1, 40, LINES)


def run(path, lengths, calls=None, seconds=0.0):
    """Decode the missing batches; each call of the teacher adds a byte to the file `calls`."""

    def slow(sentences):
        with open(calls, "ab") as file:
            file.write(b".")
        time.sleep(seconds)
        return choose(sentences)

    def add(batch, _):
        tally.add(vars(batch))

    tally = Tally()
    with Journal(path) as journal:
        if journal.header is None:
            journal.begin({})
        batches = make_plan(lengths, {}, 40, 4).batches
        teacher = slow if calls else choose
        decode(journal, batches, teacher, reference, words, add)
        records = list(journal.records())
    return records, tally


def without_time(records):
    return sorted(({**r, "seconds": 0} for r in records), key=lambda record: record["batch"])


def test_a_kill_loses_one_batch_at_most(lengths, tmp_path):
    """Each process lives too briefly to finish, so many are needed."""
    whole, _ = run(tmp_path / "whole", lengths)
    path, calls, seconds = tmp_path / "journal", tmp_path / "calls", 0.01
    fork, chance, kills = multiprocessing.get_context("fork"), random.Random(3), 0
    while True:
        process = fork.Process(target=run, args=(path, lengths, calls, seconds))
        process.start()
        process.join(chance.uniform(0.0, 0.08) if kills < 60 else None)
        if process.exitcode is not None:
            break
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        kills += 1
    assert process.exitcode == 0 and kills >= 10
    with Journal(path) as journal:
        records = list(journal.records())
    assert without_time(records) == without_time(whole)
    assert len(whole) <= len(calls.read_bytes()) <= len(whole) + kills


def test_the_tally_is_that_of_all_sentences_at_once(lengths, tmp_path):
    records, tally = run(tmp_path / "journal", lengths)
    best = [hypotheses(i)[0] for i in range(LINES)]
    outputs = [words(tokens, False) for tokens in best]
    references = [words(reference(i), True) for i in range(LINES)]
    expected = BLEU(tokenize="none", force=True).corpus_score(outputs, [references])
    assert 10 < expected.score < 90
    assert tally.score().score == pytest.approx(expected.score, rel=1e-12)
    assert tally.tokens == sum(len(tokens) + 1 for tokens in best)
    assert tally.sentences == LINES and tally.failures == {EMPTY: 11}
    shards = [Tally(), Tally()]
    for number, record in enumerate(records):
        shards[number % 2].add(vars(tally_of_record(record)))
    total = Tally()
    for shard in shards:
        total.add(vars(shard))
    assert total.bleu == tally.bleu and total.failures == tally.failures
