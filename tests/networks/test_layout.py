"""Tokens one after another and in padded rows."""

import pytest
import torch

from difformer_plugin.networks.layout import Layout, Rows

CPU = torch.device("cpu")


@pytest.mark.parametrize("lengths", [[4, 1, 3], [2, 2], [5], [1, 1, 1]])
def test_rows_hold_runs_of_tokens(lengths):
    x = torch.randn(sum(lengths), 3)
    rows = Rows(lengths, CPU)
    padded = rows.pad(x)
    assert padded.shape == (len(lengths), max(lengths), 3)
    for row, run in zip(padded, x.split(lengths)):
        assert torch.equal(row[: len(run)], run)
    assert torch.equal(rows.pack(padded), x)
    assert rows.even == (len(set(lengths)) == 1)
    if not rows.even:
        assert rows.mask.sum(1).tolist() == lengths


def test_a_layout_knows_each_tokens_place():
    layout = Layout([2, 3, 1], [0, 0, 1], CPU)
    assert layout.rows.tolist() == [0, 0, 1, 1, 1, 2]
    assert layout.positions.tolist() == [0, 1, 0, 1, 2, 0]
    assert layout.sentences.lengths.tolist() == [5, 1]
    assert layout.real is None and layout.mask.tolist() == [
        [True, True, False],
        [True, True, True],
        [True, False, False],
    ]
    assert torch.equal(layout.attention_mask, layout.mask)
    assert layout.spread(torch.tensor([[5.0], [6.0], [7.0]]))[:, 0].tolist() == [5, 5, 6, 6, 6, 7]
    assert layout.spread(torch.tensor([[5.0]])).tolist() == [[5]]


def test_candidates_of_one_length_need_no_mask():
    layout = Layout([3] * 4, [0, 0, 1, 1], CPU)
    assert layout.attention_mask is None and layout.mask.all()
    assert layout.sentences.lengths.tolist() == [6, 6]
    assert layout.spread(torch.arange(4.0)[:, None])[:, 0].tolist() == layout.rows.tolist()


def test_a_padded_layout_keeps_its_padding():
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]]).bool()
    layout = Layout.dense(mask)
    assert layout.real.tolist() == [True, True, False, True, True, True]
    assert layout.positions.tolist() == [0, 1, 2] * 2 and layout.rows.tolist() == [0] * 3 + [1] * 3
    assert torch.equal(layout.mask, mask) and torch.equal(layout.attention_mask, mask)
    assert layout.candidates is layout.sentences
