"""Binarised files: what fairseq wrote passes, and what it could not read is one line."""

import struct

import numpy as np
import pytest
import torch
from fairseq.data import indexed_dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from difformer_plugin.data.data_bin_files import check_dataset, check_file, numbered_splits
from difformer_plugin.errors import UserError


def write(stem, sentences, vocab_size=100):
    builder = indexed_dataset.make_builder(f"{stem}.bin", "mmap", vocab_size)
    for sentence in sentences:
        builder.add_item(torch.tensor(sentence))
    builder.finalize(f"{stem}.idx")


@pytest.mark.parametrize("vocab_size", [100, 70_000])
def test_tokens_must_be_in_the_dictionary(tmp_path, vocab_size):
    write(tmp_path / "x", [[5, 9, 2], [4, 2]], vocab_size)
    assert check_file(tmp_path / "x") == check_file(tmp_path / "x", 10) == 2
    with pytest.raises(UserError, match=r"x\.bin holds token 9, but .* 9 types"):
        check_file(tmp_path / "x", 9)


def test_each_side_has_its_own_dictionary(tmp_path):
    write(tmp_path / "train.de-en.de", [[20, 2]])
    write(tmp_path / "train.de-en.en", [[8, 2]])
    check_dataset(tmp_path, "train", "de", "en", (21, 9))
    check_dataset(tmp_path, "train", "en", "de", (9, 21))
    with pytest.raises(UserError, match="de.bin holds token 20"):
        check_dataset(tmp_path, "train", "de", "en", (9, 21))


def test_numbered_splits_end_at_the_first_gap(tmp_path):
    for split in ("train", "train1", "train2", "train4", "valid1"):
        write(tmp_path / f"{split}.zh-CN-en.en", [[4, 2]])
    assert numbered_splits(tmp_path, "train", "en", "zh-CN") == ["train1", "train2"]
    assert numbered_splits(tmp_path, "test", "en", "zh-CN") == []


def header(version, code, count):
    return b"MMIDIDX\x00\x00" + struct.pack("<QBQ", version, code, count)


small = st.integers(-3, 6)
INDEXES = st.builds(
    lambda head, sizes, starts, rest: (
        head + np.array(sizes, "<i4").tobytes() + np.array(starts, "<i8").tobytes() + rest
    ),
    st.builds(header, st.integers(0, 2), st.integers(0, 11), st.integers(0, 4)),
    st.lists(small, max_size=4),
    st.lists(small.map(lambda n: 2 * n), max_size=4),
    st.binary(max_size=4),
)


@settings(max_examples=150)
@given(INDEXES | st.binary(), st.binary(max_size=20), st.none() | st.integers(1, 300))
def test_any_bytes_are_a_data_set_or_a_user_error(tmp_path_factory, index, tokens, types):
    """fairseq can read what passes to the last token, and all tokens are in the dictionary."""
    stem = tmp_path_factory.getbasetemp() / "x"
    stem.with_suffix(".idx").write_bytes(index)
    stem.with_suffix(".bin").write_bytes(tokens)
    try:
        count = check_file(stem, types)
    except UserError as error:
        assert "x." in str(error) and "\n" not in str(error)
        return
    if count is not None:
        read = indexed_dataset.MMapIndexedDataset(str(stem))
        assert len(read) == count
        values = [token for i in range(count) for token in read[i].tolist()]
        assert types is None or all(0 <= value < types for value in values)


def test_the_property_is_not_empty(tmp_path):
    """The generator of indexes makes some that pass."""
    data = header(1, 8, 2) + np.array([1, 2], "<i4").tobytes() + np.array([0, 2], "<i8").tobytes()
    (tmp_path / "x.idx").write_bytes(data)
    (tmp_path / "x.bin").write_bytes(b"\x05\x00\x06\x00\x02\x00")
    assert check_file(tmp_path / "x", 7) == 2
