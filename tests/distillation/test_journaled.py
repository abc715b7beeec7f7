"""Distillation without a model: batches, shards, the journal under kill -9, choices, BLEU."""

import multiprocessing
import os
import random
import signal
import time

import numpy as np
import pytest
from sacrebleu.metrics import BLEU

from difformer_plugin.distillation.corpus import DROPPED, OUTPUT, RAW, Choice, drawn
from difformer_plugin.distillation.failures import EMPTY, LONG_SOURCE, NO_SOURCE
from difformer_plugin.distillation.journaled import (
    Tally,
    decode,
    difference,
    of_record,
    plan,
    unusable,
)
from difformer_plugin.errors import UserError
from difformer_plugin.storage.journal import Journal

LINES = 101  # no multiple of 8


@pytest.fixture
def lengths():
    return np.random.default_rng(5).integers(1, 40, LINES)


def test_every_sentence_is_in_one_batch_of_one_shard(lengths):
    causes = unusable(lengths - 1, lengths, 35)
    assert {i for i, c in causes.items() if c == NO_SOURCE} == set(np.flatnonzero(lengths == 1))
    assert {i for i, c in causes.items() if c == LONG_SOURCE} == set(np.flatnonzero(lengths > 35))
    assert len(set(causes.values())) == 2
    for shards in (1, 2, 5):
        parts = [plan(lengths, causes, 100, 7, i, shards) for i in range(shards)]
        batches = {number: batch for part in parts for number, batch in part.batches.items()}
        assert sorted(batches) == list(range(len(batches)))
        sentences = [i for batch in batches.values() for i in batch]
        sentences += [i for part in parts for i in part.failures]
        assert sorted(sentences) == list(range(LINES))
        assert sum(part.sentences() for part in parts) == LINES
        sizes = [[int(lengths[i]) for i in batches[number]] for number in sorted(batches)]
        assert all(len(batch) <= 7 and len(batch) * max(batch) <= 100 for batch in sizes)
        flat = [size for batch in sizes for size in batch]
        assert flat == sorted(flat, reverse=True)


def test_shards_have_like_work(lengths):
    work = [
        sum(lengths[i] for b in plan(lengths, {}, 60, 9, s, 4).batches.values() for i in b)
        for s in range(4)
    ]
    assert max(work) - min(work) <= 60  # one batch


def test_a_sentence_of_more_than_max_tokens_is_alone():
    batches = plan([3, 50, 4], {}, 10, 5).batches
    assert batches == {0: [1], 1: [2, 0]}


def test_more_shards_than_batches_are_refused():
    assert len(plan([3, 3, 3], {}, 3, 5, 2, 3).batches) == 1
    with pytest.raises(UserError, match="only 3 batches"):
        plan([3, 3, 3], {}, 3, 5, 0, 4)


def pairs(sentence):
    return [sentence, sentence + 1, 5], [sentence, 7, 8]


def hypotheses(i):
    """Those of a sentence: every tenth first one is empty, and half of these have a second."""
    return [[] if i % 10 == 0 else [i, 7, 8, i % 3], [i, 9] if i % 20 == 0 else []]


def translate(sentences):
    return [(hypotheses(i), 40) for i in sentences]


def words(tokens, is_reference):
    return " ".join(map(str, tokens))


def run(path, lengths, calls=None, seconds=0.0):
    """Decode what is left in the journal; each call of the teacher leaves a byte in `calls`."""

    def slow(sentences):
        with open(calls, "ab") as file:
            file.write(b".")
        time.sleep(seconds)
        return translate(sentences)

    tally = Tally()
    with Journal(path) as journal:
        if journal.header is None:
            journal.begin({})
        batches = plan(lengths, {}, 40, 4).batches
        teacher = slow if calls else translate
        decode(journal, batches, teacher, pairs, words, lambda batch, is_old: tally.add(batch))
        records = list(journal.records())
    return records, tally


def without_time(records):
    return sorted(({**r, "seconds": 0} for r in records), key=lambda record: record["batch"])


def test_kills_lose_nothing_and_cost_a_batch_each(lengths, tmp_path):
    """Each life is too short for the whole, so that there must be many."""
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


def test_the_tally_is_that_of_all_lines_at_once(lengths, tmp_path):
    records, tally = run(tmp_path / "journal", lengths)
    best = [hypotheses(i)[0] for i in range(LINES)]
    outputs = [words(tokens, False) for tokens in best]
    references = [words(pairs(i)[1], True) for i in range(LINES)]
    expected = BLEU(tokenize="none", force=True).corpus_score(outputs, [references])
    assert 10 < expected.score < 90
    assert tally.score().score == pytest.approx(expected.score, rel=1e-12)
    assert tally.tokens == sum(len(tokens) + 1 for tokens in best)
    assert tally.sentences == LINES and tally.failures == {EMPTY: 11}
    shards = [Tally(), Tally()]
    for number, record in enumerate(records):
        shards[number % 2].add(of_record(record))
    total = Tally()
    for shard in shards:
        total.add(vars(shard))
    assert total.bleu == tally.bleu and total.failures == tally.failures


@pytest.mark.parametrize("on_failure", ["keep", "drop", "replace"])
def test_what_becomes_of_failures(tmp_path, on_failure):
    lengths = np.full(30, 5)
    causes = {4: NO_SOURCE, 11: LONG_SOURCE}
    work = plan(lengths, causes, 40, 4)
    with Journal(tmp_path / "journal") as journal:
        journal.begin({})
        decode(journal, work.batches, translate, pairs, words, lambda *unused: None)
        choice = Choice(work, journal, on_failure)
    failed, replaceable = {0, 4, 10, 11, 20}, {0, 20}
    assert [(i, cause) for i, cause, _, _ in choice.failures] == [
        (0, EMPTY),
        (4, NO_SOURCE),
        (10, EMPTY),
        (11, LONG_SOURCE),
        (20, EMPTY),
    ]
    replaced = replaceable if on_failure == "replace" else set()
    kind = DROPPED if on_failure == "drop" else RAW
    assert choice.replaced == len(replaced)
    rows = choice.rows().tolist()
    assert rows == sorted(set(range(30)) - (failed if on_failure == "drop" else set()))
    for i in range(30):
        if i in failed - replaced:
            assert choice.kinds[i] == kind
            continue
        assert choice.kinds[i] == OUTPUT
        expected = hypotheses(i)[1 if i in replaced else 0]
        assert choice.output(i).tolist() == expected
    if on_failure != "drop":
        assert all(choice.output(i) is None for i in failed - replaced)


def test_a_sentence_that_is_missing_is_noticed(tmp_path):
    work = plan(np.full(8, 5), {}, 40, 4)
    with Journal(tmp_path / "journal") as journal:
        journal.begin({})
        decode(journal, {0: work.batches[0]}, translate, pairs, words, lambda *unused: None)
        with pytest.raises(UserError, match="lacks sentences"):
            Choice(work, journal, "keep")


def test_raw_pairs_are_drawn_by_sentence():
    assert drawn(1000, 1.0, 1).all() and not drawn(1000, 0.0, 1).any()
    some, more = drawn(10000, 0.3, 1), drawn(10000, 0.6, 1)
    assert abs(some.mean() - 0.3) < 5 * (0.3 * 0.7 / 10000) ** 0.5
    assert not (some & ~more).any()  # a greater share only adds
    assert (some != drawn(10000, 0.3, 2)).any()


def test_differences_in_words():
    ours = {"data": "a", "teacher": "b", "--beam": 5}
    assert difference(ours, ours) == ""
    assert difference({**ours, "teacher": "c", "--beam": 4}, ours) == (
        "another teacher, --beam 4 instead of 5"
    )
    assert difference({**ours, "data": "c"}, ours) == "other data"
