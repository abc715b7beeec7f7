"""What the tests of the engine share: comparing candidates, and scoring those of a race."""

import torch

from difformer_plugin.reranking.options import build_reranker
from difformer_plugin.reranking.reranker import Batch, Candidate


def assert_same(ours, theirs, tolerance=1e-4):
    """Two lists of Drawn have the same tokens, and log-probabilities up to round-off."""
    for a, b in zip(ours, theirs, strict=True):
        assert a.tokens.tolist() == b.tokens.tolist()
        torch.testing.assert_close(a.log_probs, b.log_probs, rtol=tolerance, atol=tolerance)
        assert a.steps == b.steps and a.dropped == b.dropped and len(a.history) == len(b.history)
        for (x, p), (y, q) in zip(a.history, b.history):
            assert x.tolist() == y.tolist()
            torch.testing.assert_close(p, q, rtol=1e-3, atol=1e-3)


def race_scores_of(options, dictionary):
    """What scores the candidates of a race by the reranker that options choose."""
    reranker = build_reranker(options, dictionary)

    def race_scores(sentences, candidates):
        candidates = [[Candidate(*c) for c in own] for own in candidates]
        return reranker.race_scores(Batch((), None, None, candidates))

    return race_scores
