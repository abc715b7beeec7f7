"""A teacher's scores by brute force: one candidate at a time, one token after another."""

import torch

PAD, BOS, EOS = 1, 0, 2


@torch.no_grad()
def one_by_one(teacher, src_tokens, candidates):
    """Mean log p(y_i | y_<i, x) with EOS, from a softmax of the logits, without any padding.

    Args:
        src_tokens: (M, S), a source for each candidate.
        candidates: M tensors of tokens, with a frame or without.
    Returns:
        M floats.
    """
    means = []
    for source, candidate in zip(src_tokens.tolist(), candidates, strict=True):
        tokens = [token for token in candidate.tolist() if token not in (PAD, BOS, EOS)]
        source = torch.tensor([[token for token in source if token not in (PAD, BOS)]])
        total = 0.0
        for i, token in enumerate([*tokens, EOS]):
            prefix = torch.tensor([[EOS, *tokens[:i]]])
            logits = teacher(source, torch.tensor([source.shape[1]]), prefix)[0][0, -1]
            total += (logits[token] - logits.logsumexp(0)).item()
        means.append(total / (len(tokens) + 1))
    return means
