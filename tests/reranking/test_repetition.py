"""The reranker that counts repeated tokens."""

import torch

from difformer_plugin.reranking.repetition import Repetition
from difformer_plugin.reranking.reranker import Batch, Candidate


def test_neighbours_that_are_equal_count(task):
    """BOS, EOS and padding are no tokens, and may lie between."""
    lists = [[0, 5, 5, 6, 6, 6, 5, 2], [0, 5, 2, 5, 2], [0, 2], [0, 7, 8, 2]]
    own = [Candidate(torch.tensor(tokens), torch.zeros(len(tokens))) for tokens in lists]
    reranker, batch = Repetition(None, task.target_dictionary), Batch((), None, None, [own])
    assert reranker.scores(batch) == reranker.race_scores(batch) == [[-3.0, -1.0, 0.0, 0.0]]
