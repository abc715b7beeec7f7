"""--num-batch-buckets: few shapes of batches, and the same sentences."""

import numpy as np
import pytest
import torch
from fairseq.data import LanguagePairDataset, ListDataset

import difformer_plugin
from difformer_plugin.fairseq_patches.batch_buckets import get_buckets

difformer_plugin.register()


def pairs(task, **options):
    generator = torch.Generator().manual_seed(2)
    sides = []
    for dictionary in (task.source_dictionary, task.target_dictionary):
        lengths = torch.randint(2, 12, (57,), generator=generator).tolist()
        sentences = [torch.randint(4, len(dictionary), (n,), generator=generator) for n in lengths]
        sides.append((ListDataset(sentences, lengths), np.array(lengths), dictionary))
    return LanguagePairDataset(*sides[0], *sides[1], left_pad_target=False, **options)


@pytest.mark.parametrize("number", [1, 2, 4, 50])
def test_few_lengths_and_every_sentence_once(task, number):
    plain, padded = pairs(task), pairs(task, num_buckets=number)
    assert len(set(padded.src_sizes)) <= number and len(set(padded.tgt_sizes)) <= number
    batches = padded.batch_by_size(padded.ordered_indices(), max_tokens=60)
    assert sorted(i for batch in batches for i in batch) == list(range(57))
    for i in range(57):
        for side, dictionary in (("source", padded.src_dict), ("target", padded.tgt_dict)):
            tokens = padded[i][side]
            assert torch.equal(tokens[tokens != dictionary.pad()], plain[i][side])
    for batch in batches:
        sample = padded.collater([padded[i] for i in batch])
        assert sample["target"].numel() <= 60


def test_buckets_hold_equally_many():
    assert get_buckets(np.arange(100), 4).tolist() == [24, 49, 74, 99]
