"""Sentences that are too long, formats of data-bins, and several training splits."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fairseq.data import LanguagePairDataset, ListDataset, indexed_dataset

from difformer_plugin.errors import UserError
from difformer_plugin.tasks import loading

SOURCES, TARGETS = np.array([3, 9, 5, 7]), np.array([4, 5, 12, 7])


@pytest.fixture
def dataset(task):
    """Four pairs of 4, 9, 12 and 7 tokens."""
    sides = [
        (ListDataset([torch.ones(n).long() for n in sizes], sizes), sizes, dictionary)
        for sizes, dictionary in (
            (SOURCES, task.source_dictionary),
            (TARGETS, task.target_dictionary),
        )
    ]
    return LanguagePairDataset(*sides[0], *sides[1])


def keep(dataset, positions, skip=True, max_tokens=None):
    kept = loading.filter_by_size(np.arange(4), dataset, positions, skip, max_tokens)
    return kept.tolist()


def test_a_sentence_is_skipped_if_a_batch_or_a_table_has_no_room(dataset, caplog):
    assert keep(dataset, (20, 20)) == keep(dataset, (20, 20), False, 12) == [0, 1, 2, 3]
    assert not caplog.text
    assert keep(dataset, (20, 20), max_tokens=7) == [0, 3]
    assert "skipped 2 sentences with more tokens than a batch may have, --max-t" in caplog.text
    assert keep(dataset, (8, 20)) == [0, 2, 3]
    assert "skipped 1 sentences with more tokens than the position tables hold, (8, 20)" in (
        caplog.text
    )
    assert keep(dataset, (8, 20), max_tokens=11) == [0, 3]


@pytest.mark.parametrize(
    "positions, max_tokens, said",
    [
        ((20, 20), 8, r"sentence 1 .* 9, 5 tokens .* --max-tokens 8; 2 such .*--max-tokens-valid"),
        ((20, 11), 12, r"sentence 2 .* 5, 12 tokens .* tables hold.*--max-target-positions"),
        ((8, 11), 11, r"sentence 2 .* --max-tokens 11"),
    ],
)
def test_otherwise_the_reason_is_named(dataset, positions, max_tokens, said):
    with pytest.raises(UserError, match=said):
        keep(dataset, positions, False, max_tokens)


def test_no_sentence_is_left(dataset):
    with pytest.raises(UserError, match="no sentence is left: 4 have .* --max-tokens 2: raise it"):
        keep(dataset, (20, 20), max_tokens=2)


# formats


def options(kind=None, **more):
    return SimpleNamespace(source_lang="de", target_lang="en", dataset_impl=kind, **more)


def write(path, kind, split="train", tokens=(4, 5, 2)):
    """A split of one sentence pair in a format of fairseq's."""
    for language in ("de", "en"):
        prefix = f"{path}/{split}.de-en.{language}"
        if kind == "raw":
            with open(prefix, "w") as file:
                file.write("a\n")
            continue
        builder = indexed_dataset.make_builder(f"{prefix}.bin", kind, vocab_size=9)
        builder.add_item(torch.tensor(tokens))
        builder.finalize(f"{prefix}.idx")


@pytest.mark.parametrize(
    "written, given, read",
    [
        ("mmap", None, None),
        ("mmap", "mmap", "mmap"),
        ("lazy", None, "lazy"),
        ("lazy", "lazy", "lazy"),
        ("cached", "cached", "lazy"),
        ("raw", "raw", "raw"),
    ],
)
def test_the_format_of_a_split(tmp_path, written, given, read):
    write(tmp_path, written)
    assert loading.dataset_format(tmp_path, "train", options(given)) == read


@pytest.mark.parametrize(
    "written, given",
    [("mmap", "lazy"), ("mmap", "raw"), ("mmap", "fasta"), ("lazy", "mmap"), ("raw", "huffman")],
)
def test_a_split_in_another_format_than_the_option_says(tmp_path, written, given):
    write(tmp_path, written)
    with pytest.raises(UserError, match=f"--dataset-impl {given} does not read .*: omit the opt"):
        loading.dataset_format(tmp_path, "train", options(given))


@pytest.mark.parametrize("upsampled, weight", [(-1, 1), (2, 2)])
def test_types_are_counted_as_often_as_training_reads_them(tmp_path, task, upsampled, weight):
    write(tmp_path, "mmap", "train", (4, 6, 2))
    write(tmp_path, "mmap", "train1", (5, 6, 2))
    cfg = options(data=str(tmp_path), train_subset="train", upsample_primary=upsampled)
    counts = loading.count_types(cfg, task.target_dictionary)
    assert [counts[i].item() for i in (4, 5, 6)] == [weight, 1, weight + 1]


@pytest.mark.parametrize("given, times", [(-1, 1), (1, 1), (3, 3)])
def test_how_often_the_first_of_several_splits_is_read(given, times):
    assert loading.upsampling(SimpleNamespace(upsample_primary=given)) == times


@pytest.mark.parametrize("given", [0, -2])
def test_a_split_that_would_not_be_read(given):
    with pytest.raises(UserError, match=f"--upsample-primary must be at least 1, not {given}"):
        loading.upsampling(SimpleNamespace(upsample_primary=given))
