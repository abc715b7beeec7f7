"""The teacher's log-probabilities of all candidates of all sentences, each source encoded once."""

from copy import copy
from functools import partial

import torch
from torch.nn.utils.rnn import pad_sequence

from difformer_plugin.reranking.choice import mean_log_probs, without_bos

TOKENS = 1024  # target tokens read at a time, padding included; of more, caches lose the logits


def candidate_log_probs(teacher, src_tokens, candidates, dictionary):
    """Mean log-probability of candidates under an autoregressive model: minus their log-perplexity.

    Equal candidates of a sentence are scored once.

    Args:
        teacher: a fairseq encoder-decoder model, in evaluation mode.
        src_tokens: (B, S), with BOS.
        candidates: for each sentence its candidates, any number of them: tensors of tokens, framed
            by BOS and EOS or not, best on the CPU.
        dictionary: the target dictionary.
    Returns:
        for each sentence a list of floats, in nats per token, EOS included.
    """
    bos, eos, pad = dictionary.bos(), dictionary.eos(), dictionary.pad()
    targets = [
        [(*(t for t in tokens.tolist() if t not in (bos, eos, pad)), eos) for tokens in texts]
        for texts in candidates
    ]
    # the longest first, so that a chunk's first is its longest
    todo = sorted(
        ((row, target) for row, texts in enumerate(targets) for target in dict.fromkeys(texts)),
        key=lambda pair: -len(pair[1]),
    )
    sources = without_bos(src_tokens, bos, pad)
    # recurrent encoders want no column of padding alone, and the longest first
    sources = sources[:, sources.ne(pad).any(0)]
    lengths = sources.ne(pad).sum(1)
    order = lengths.argsort(descending=True, stable=True)
    memory = teacher.encoder(sources[order], src_lengths=lengths[order])
    place = order.argsort()
    scores = []
    while len(scores) < len(todo):
        start = len(scores)
        rows, chunk = zip(*todo[start : start + max(1, TOKENS // len(todo[start][1]))])
        target = pad_sequence([torch.tensor(t) for t in chunk], True, pad).to(sources.device)
        # a copy, because some encoders write what they reorder into the output they are given
        spread = teacher.encoder.reorder_encoder_out(copy(memory), place[list(rows)])
        decode = partial(teacher.decoder, encoder_out=spread)
        scores += mean_log_probs(teacher, target, dictionary, decode).tolist()
    score = dict(zip(todo, scores))
    return [[score[row, target] for target in texts] for row, texts in enumerate(targets)]
