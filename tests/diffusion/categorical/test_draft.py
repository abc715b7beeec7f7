"""Partially decoded targets are indexed, placed and overwritten like tensors."""

import torch

from difformer_plugin.diffusion.categorical.draft import Draft
from difformer_plugin.networks.layout import Layout


def test_a_draft_is_indexed_placed_and_overwritten():
    z = Draft(torch.tensor([0, 3, 4, 2, 0, 5, 2]), -torch.arange(7.0))
    assert len(z) == 7
    rows = torch.tensor([1, 2])
    assert z[rows].tokens.tolist() == [3, 4] and z[rows].log_probs.tolist() == [-1, -2]
    assert z[z.tokens > 2].tokens.tolist() == [3, 4, 5]
    mask = torch.arange(5) < torch.tensor([[4], [3]])
    padded = z.placed(Layout.dense(mask))
    assert padded.tokens.view(2, 5)[mask].equal(z.tokens)
    assert padded.log_probs.view(2, 5)[mask].equal(z.log_probs)
    assert z.placed(Layout.packed(mask)).tokens is z.tokens
    other = Draft(torch.zeros(7, dtype=torch.long), torch.zeros(7))
    kept = other.tokens
    other.copy_(z)
    assert kept.equal(z.tokens) and other.log_probs.equal(z.log_probs)
