"""Which lengths are tried."""

import pytest
import torch

from difformer_plugin.decoding.candidates import forced_lengths, length_beam
from difformer_plugin.decoding.options import DecodingOptions

CLASSES = 40


def brute_force(logits, lengths, size, longest):
    """The most likely possible lengths, found one by one; ties take the smaller class."""
    left = [
        (-logit, c, length)
        for c, (logit, length) in enumerate(zip(logits.tolist(), lengths.tolist()))
        if 2 <= length <= longest
    ]
    return [length for *_, length in sorted(left)[:size]]


@pytest.mark.parametrize("size", [1, 3, 10])
@pytest.mark.parametrize("longest", [20, 100])
def test_the_beam_has_the_likeliest_possible_lengths(size, longest):
    logits = torch.randn(6, CLASSES)
    logits[:, :2] += 10  # the likeliest lengths have no room for BOS and EOS
    lengths = torch.arange(CLASSES) + torch.tensor([[0], [5], [-8], [0], [3], [1]])
    ours = length_beam(logits, lengths, size, longest)
    for row in range(6):
        assert ours[row].tolist() == brute_force(logits[row], lengths[row], size, longest)


def test_equal_logits_take_the_smaller_class():
    logits, lengths = torch.zeros(3, CLASSES), torch.arange(CLASSES).expand(3, -1)
    assert length_beam(logits, lengths, 4, 30).tolist() == [[2, 3, 4, 5]] * 3


def test_half_precision_gives_the_same_order():
    logits, lengths = torch.randn(5, CLASSES), torch.arange(CLASSES).expand(5, -1)
    half = logits.half()
    expected = length_beam(half.double(), lengths, 7, 35)
    assert torch.equal(length_beam(half, lengths, 7, 35), expected)


def test_more_lengths_than_are_possible_stay_in_bounds():
    ours = length_beam(torch.randn(2, CLASSES), torch.arange(CLASSES).expand(2, -1), 12, 6)
    for row in ours.tolist():
        assert len(row) == 12 and set(row) == {2, 3, 4, 5, 6}


def test_scaled_lengths_count_neither_bos_nor_eos():
    """23 subwords become 23 x 1.04 = 23.92, and 12 become 12.48."""
    logits, lengths = torch.zeros(1, CLASSES), torch.arange(CLASSES)[None]
    logits[0, 25], logits[0, 14] = 2, 1
    assert length_beam(logits, lengths, 2, 100, scale=1.04).tolist() == [[26, 14]]
    assert length_beam(logits, lengths, 2, 25, scale=1.5).tolist() == [[25, 20]]  # the longest
    every = length_beam(logits, lengths, CLASSES - 2, 10 * CLASSES, scale=1.04)
    assert len(set(every[0].tolist())) == CLASSES - 2  # different lengths stay different


@pytest.mark.parametrize(
    "best, size, expected",
    [
        (10, 1, [10]),
        (10, 3, [9, 10, 11]),
        (10, 4, [8, 9, 10, 11]),
        (10, 5, [8, 9, 10, 11, 12]),
        (2, 3, [2, 2, 3]),
        (20, 3, [19, 20, 20]),
    ],
)
def test_window_of_consecutive_lengths(best, size, expected):
    logits = torch.randn(1, CLASSES)
    logits[0, best], logits[0, 30] = 10, 20  # 30 is longer than the model can
    lengths = torch.arange(CLASSES)[None]
    assert length_beam(logits, lengths, size, 20, window=True).tolist() == [expected]


@pytest.mark.parametrize(
    "options, expected",
    [
        ({"force_length": 5}, [7, 7, 7]),
        ({"force_length": 50}, [20, 20, 20]),
        ({"force_length_ratio": 1.0}, [3, 6, 12]),
        ({"force_length_ratio": 2.0}, [4, 10, 20]),
        ({"force_length_ratio": 0.01}, [3, 3, 3]),
        ({"force_length_ratio": 1e30}, [20, 20, 20]),
    ],
)
def test_forced_lengths(options, expected):
    """Sources of 1, 4 and 10 subwords; lengths count BOS and EOS and end at 20."""
    ours = forced_lengths(torch.tensor([3, 6, 12]), DecodingOptions(**options), 20)
    assert ours.tolist() == [[length] for length in expected]
    assert ours.dtype == torch.int64
