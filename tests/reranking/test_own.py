"""The model's own probability, and the reranker that options choose."""

import pytest
import torch

from difformer_plugin.decoding.options import DecodingOptions
from difformer_plugin.reranking.options import build_reranker
from difformer_plugin.reranking.own import OwnProbability
from difformer_plugin.reranking.reranker import RERANKERS, Batch, Candidate


def test_own_probability_is_a_mean_over_tokens():
    tokens = torch.zeros(3, dtype=torch.long)
    candidates = [
        [Candidate(tokens, torch.tensor([-1.0, -2.0, -6.0])), Candidate(tokens, torch.zeros(3))],
        [Candidate(tokens[:1], torch.tensor([-4.0]))],
    ]
    own, batch = OwnProbability(None, None), Batch((), None, None, candidates)
    assert own.scores(batch) == own.race_scores(batch) == [[-3.0, 0.0], [-4.0]]


@pytest.mark.parametrize(
    "options, name", [({}, "own"), ({"bleu_mbr": True}, "mbr"), ({"ppl_mbr": True}, "teacher")]
)
def test_options_choose_the_reranker(task, options, name):
    reranker = build_reranker(DecodingOptions(**options), task.target_dictionary)
    assert type(reranker) is RERANKERS[name] and reranker.name == name
    assert reranker.needs_teacher == (name == "teacher")
