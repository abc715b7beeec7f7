"""Batches and shards: every sentence once, whatever the number of shards."""

import numpy as np
import pytest

from difformer_plugin.distillation.failures import LONG_SOURCE, NO_SOURCE
from difformer_plugin.distillation.plan import make_plan, unusable
from difformer_plugin.errors import UserError

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
        parts = [make_plan(lengths, causes, 100, 7, i, shards) for i in range(shards)]
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


def test_shards_have_similar_work(lengths):
    work = [
        sum(lengths[i] for b in make_plan(lengths, {}, 60, 9, s, 4).batches.values() for i in b)
        for s in range(4)
    ]
    assert max(work) - min(work) <= 60  # one batch


def test_a_sentence_of_more_than_max_tokens_is_a_batch_of_its_own():
    batches = make_plan([3, 50, 4], {}, 10, 5).batches
    assert batches == {0: [1], 1: [2, 0]}


def test_more_shards_than_batches_are_refused():
    assert len(make_plan([3, 3, 3], {}, 3, 5, 2, 3).batches) == 1
    with pytest.raises(UserError, match="only 3 batches"):
        make_plan([3, 3, 3], {}, 3, 5, 0, 4)
