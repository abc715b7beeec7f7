"""Choosing among candidates: minimum Bayes risk with BLEU, or a teacher's perplexity."""

from functools import partial
from itertools import permutations

import torch
from sacrebleu.metrics import BLEU
from torch.nn.utils.rnn import pad_sequence

TEACHER_TOKENS = 4096  # target tokens that the teacher scores at a time


def bleu_scores(candidates):
    """For each candidate its mean sentence BLEU against the others as references (Sec. 3.3).

    Equal candidates are scored once. A single candidate has 0.

    Args:
        candidates: the candidates of one sentence, as detokenised or space-separated words.
    Returns:
        a list of floats on sacrebleu's scale of 0 to 100.
    """
    bleu = BLEU(effective_order=True)
    distinct = set(candidates)
    pair = {
        (hypothesis, reference): bleu.sentence_score(hypothesis, [reference]).score
        for hypothesis, reference in permutations(sorted(distinct), 2)
    }
    pair |= {(text, text): bleu.sentence_score(text, [text]).score for text in distinct}
    return [
        sum(pair[text, other] for j, other in enumerate(candidates) if j != i)
        / max(len(candidates) - 1, 1)
        for i, text in enumerate(candidates)
    ]


def without_bos(src_tokens, bos, pad):
    """Sources as an autoregressive model was trained on them: no BOS at their start."""
    if src_tokens[:, 0].eq(bos).all():
        return src_tokens[:, 1:]
    return src_tokens.masked_fill(src_tokens.eq(bos), pad)  # it stood right after the padding


def mean_log_probs(teacher, target, dictionary, decode):
    """Mean log-probability of targets under a decoder that reads them.

    Args:
        target: (M, L), tokens and EOS, then padding.
        decode: from the decoder's inputs, (M, L), to the output of the model for them.
    Returns:
        float32 (M,), in nats per token.
    """
    eos, pad = dictionary.eos(), dictionary.pad()
    previous = target.roll(1, 1)
    previous[:, 0] = eos
    # fairseq pads the inputs too, where roll has put the EOS of the shorter ones
    previous = previous.masked_fill(target.eq(pad), pad)
    log_probs = teacher.get_normalized_probs(decode(previous), log_probs=True).float()
    picked = log_probs.gather(-1, target[..., None])[..., 0].masked_fill(target.eq(pad), 0)
    return picked.sum(1) / target.ne(pad).sum(1)


def teacher_scores(teacher, src_tokens, candidates, dictionary):
    """Mean log-probability of candidates under an autoregressive model: minus their log-perplexity.

    Each is scored with a source of its own.

    Args:
        teacher: a fairseq encoder-decoder model, in evaluation mode.
        src_tokens: (N, S), the source of each candidate, with BOS.
        candidates: N tensors of tokens, framed by BOS and EOS or not.
        dictionary: the target dictionary.
    Returns:
        float32 (N,), in nats per token, EOS included.
    """
    eos, pad = dictionary.eos(), dictionary.pad()
    frame = torch.tensor([dictionary.bos(), eos, pad], device=src_tokens.device)
    sources = without_bos(src_tokens, dictionary.bos(), pad)
    end = sources.new_tensor([eos])
    candidates = [candidate.to(sources.device) for candidate in candidates]
    targets = [torch.cat([c[~torch.isin(c, frame)], end]) for c in candidates]
    rows = max(1, TEACHER_TOKENS // max(len(target) for target in targets))
    scores = []
    for start in range(0, len(targets), rows):
        source = sources[start : start + rows]
        target = pad_sequence(targets[start : start + rows], batch_first=True, padding_value=pad)
        decode = partial(teacher, source, source.ne(pad).sum(1))
        scores.append(mean_log_probs(teacher, target, dictionary, decode))
    return torch.cat(scores)
