"""Batches of a split for `difformer tune` and `difformer probe`."""

import pytest
import torch
from fairseq.data import LanguagePairDataset
from fairseq.tasks import FairseqTask

from difformer_plugin.data.batches import load_batches
from difformer_plugin.errors import UserError

SIZES = [5, 3, 9, 3, 7, 4]  # of the sources; targets are a token shorter, but for the second
CPU = torch.device("cpu")


class Task(FairseqTask):
    """A task whose split `valid` is made of zeros."""

    def __init__(self, dictionary, targets=True, sizes=SIZES):
        super().__init__(None)
        target_sizes = [8 if i == 1 else size - 1 for i, size in enumerate(sizes)]
        sides = [
            ([torch.full((size,), 4) for size in own], own, dictionary)
            for own in (sizes, target_sizes)
        ]
        arguments = [*sides[0], *(sides[1] if targets else ())]
        self.datasets["valid"] = LanguagePairDataset(*arguments)

    def load_dataset(self, split, **unused):
        """It is loaded already."""


def ids(batches):
    return [batch["id"].tolist() for batch in batches]


def load(task, batch_size=2, num_sentences=None):
    return load_batches(task, "data", "valid", batch_size, (20, 20), CPU, num_sentences)


@pytest.fixture
def dictionary(task):
    return task.source_dictionary


def test_batches_are_sorted_by_source_length_then_target_length(dictionary):
    batches = load(Task(dictionary), batch_size=4)
    assert sorted(ids(batches)[0]) == [0, 1, 3, 5] and sorted(ids(batches)[1]) == [2, 4]
    assert ids(load(Task(dictionary), batch_size=1)) == [[3], [1], [5], [0], [4], [2]]
    assert all("target" in batch for batch in batches)


def test_sample_of_sentences_is_evenly_spread(dictionary):
    assert ids(load(Task(dictionary), 1, num_sentences=3)) == [[3], [5], [2]]
    assert len(load(Task(dictionary), 1, num_sentences=100)) == 6


def test_unusable_splits_are_refused(dictionary):
    with pytest.raises(UserError, match="data: valid has no targets"):
        load(Task(dictionary, targets=False))
    with pytest.raises(UserError, match="data: valid has no sentences"):
        load(Task(dictionary, sizes=[]))
