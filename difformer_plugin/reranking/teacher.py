"""Rerank by a teacher: choose the candidate that an autoregressive model finds most likely."""

from collections.abc import Callable, Sequence
from copy import copy
from functools import partial
from typing import Any, ClassVar

import torch
from fairseq.data import Dictionary
from torch.nn.utils.rnn import pad_sequence

from difformer_plugin.errors import UserError
from difformer_plugin.families.contract import is_diffusion_model
from difformer_plugin.reranking.reranker import Batch, Scores, register_reranker

TOKENS = 1024  # target tokens scored at a time, padding included: more exceed CPU caches


@register_reranker
class TeacherProbability:
    """Mean log-probability per token of a candidate under the second model of --path, in nats.

    Args:
        options: DecodingOptions.
        dictionary: the target dictionary.
    """

    name: ClassVar[str] = "teacher"
    needs_teacher = True

    def __init__(self, options: Any, dictionary: Dictionary):
        self.dictionary = dictionary
        self.option = "--ppl-mbr" if options.ppl_mbr else "--rerank teacher"

    def check(self, models: Sequence[Any]) -> None:
        """Check that there is a second model, and that it is autoregressive.

        Raises:
            UserError: otherwise.
        """
        if len(models) < 2:
            raise UserError(f"{self.option} needs a teacher: --path difformer.pt:teacher.pt")
        if is_diffusion_model(models[1]):
            raise UserError(
                "the teacher, the second model of --path, must be autoregressive, "
                f"not a {type(models[1]).__name__}"
            )

    def scores(self, batch: Batch) -> Scores:
        """Mean log-probabilities, which count EOS."""
        tokens = [[c.tokens for c in candidates] for candidates in batch.candidates]
        return candidate_log_probs(batch.models[1], batch.src_tokens, tokens, self.dictionary)

    race_scores = scores


def without_bos(src_tokens: torch.Tensor, bos: int, pad: int) -> torch.Tensor:
    """Remove BOS from sources, since fairseq's autoregressive models are trained without it.

    Args:
        src_tokens: int64 (B, S), padded on the left or on the right.
    Returns:
        int64 (B, S) or (B, S - 1).
    """
    if src_tokens[:, 0].eq(bos).all():
        return src_tokens[:, 1:]
    return src_tokens.masked_fill(src_tokens.eq(bos), pad)  # padding on the left grows by one


def mean_log_probs(
    teacher: Any,
    target: torch.Tensor,
    dictionary: Dictionary,
    decode: Callable[[torch.Tensor], Any],
) -> torch.Tensor:
    """Mean log-probability of targets by teacher forcing.

    Args:
        teacher: a fairseq encoder-decoder model.
        target: int64 (M, L), tokens and EOS, then padding.
        dictionary: the target dictionary.
        decode: maps the decoder's inputs, int64 (M, L), to its output.
    Returns:
        float32 (M,), in nats per token.
    """
    eos, pad = dictionary.eos(), dictionary.pad()
    previous = target.roll(1, 1)
    previous[:, 0] = eos
    # `roll` put the EOS of shorter targets where fairseq has padding.
    previous = previous.masked_fill(target.eq(pad), pad)
    log_probs = teacher.get_normalized_probs(decode(previous), log_probs=True).float()
    picked = log_probs.gather(-1, target[..., None])[..., 0].masked_fill(target.eq(pad), 0)
    return picked.sum(1) / target.ne(pad).sum(1)


def candidate_log_probs(
    teacher: Any,
    src_tokens: torch.Tensor,
    candidates: Sequence[Sequence[torch.Tensor]],
    dictionary: Dictionary,
) -> Scores:
    """Mean log-probability per token of candidates under an autoregressive model.

    It is the negative logarithm of their perplexity. Equal candidates of a sentence are scored
    once.

    Args:
        teacher: a fairseq encoder-decoder model, in evaluation mode.
        src_tokens: int64 (B, S), with BOS.
        candidates: for each sentence any number of candidates: int64 (L,), with or without BOS and
            EOS. Tensors on the CPU are faster, since their values are read one by one.
        dictionary: the target dictionary.
    Returns:
        for each sentence a list of floats, in nats per token; EOS counts as a token.
    """
    bos, eos, pad = dictionary.bos(), dictionary.eos(), dictionary.pad()
    targets = [
        [(*(t for t in tokens.tolist() if t not in (bos, eos, pad)), eos) for tokens in own]
        for own in candidates
    ]
    # Longest first, so that the first target of a chunk is its longest.
    todo = sorted(
        ((row, target) for row, own in enumerate(targets) for target in dict.fromkeys(own)),
        key=lambda pair: -len(pair[1]),
    )
    sources = without_bos(src_tokens, bos, pad)
    # Recurrent encoders need sources in order of length and no column that is all padding.
    sources = sources[:, sources.ne(pad).any(0)]
    lengths = sources.ne(pad).sum(1)
    order = lengths.argsort(descending=True, stable=True)
    memory = teacher.encoder(sources[order], src_lengths=lengths[order])
    place = order.argsort()
    scores: list[float] = []
    while len(scores) < len(todo):
        start = len(scores)
        rows, chunk = zip(*todo[start : start + max(1, TOKENS // len(todo[start][1]))])
        target = pad_sequence([torch.tensor(t) for t in chunk], True, pad).to(sources.device)
        # A copy, because some encoders reorder the output in place.
        repeated = teacher.encoder.reorder_encoder_out(copy(memory), place[list(rows)])
        decode = partial(teacher.decoder, encoder_out=repeated)
        scores += mean_log_probs(teacher, target, dictionary, decode).tolist()
    score = dict(zip(todo, scores))
    return [[score[row, target] for target in own] for row, own in enumerate(targets)]
