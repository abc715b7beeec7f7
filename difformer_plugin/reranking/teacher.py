"""A teacher's choice: the candidate that an autoregressive model finds likeliest."""

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

TOKENS = 1024  # target tokens read at a time, padding included; of more, caches lose the logits


@register_reranker
class TeacherProbability:
    """Mean log-probability of a candidate under the second model of --path, in nats a token."""

    name: ClassVar[str] = "teacher"
    needs_teacher = True

    def __init__(self, options: Any, dictionary: Dictionary):
        self.dictionary = dictionary
        self.option = "--ppl-mbr" if options.ppl_mbr else "--rerank teacher"

    def check(self, models: Sequence[Any]) -> None:
        """The second model must be autoregressive."""
        if len(models) < 2:
            raise UserError(f"{self.option} needs a teacher: --path difformer.pt:teacher.pt")
        if is_diffusion_model(models[1]):
            raise UserError(
                "the teacher, the second model of --path, must be autoregressive, "
                f"not a {type(models[1]).__name__}"
            )

    def scores(self, batch: Batch) -> Scores:
        """The means, EOS included."""
        tokens = [[c.tokens for c in candidates] for candidates in batch.candidates]
        return candidate_log_probs(batch.models[1], batch.src_tokens, tokens, self.dictionary)

    race_scores = scores


def without_bos(src_tokens: torch.Tensor, bos: int, pad: int) -> torch.Tensor:
    """Sources as an autoregressive model was trained on them: no BOS at their start."""
    if src_tokens[:, 0].eq(bos).all():
        return src_tokens[:, 1:]
    return src_tokens.masked_fill(src_tokens.eq(bos), pad)  # it stood right after the padding


def mean_log_probs(
    teacher: Any,
    target: torch.Tensor,
    dictionary: Dictionary,
    decode: Callable[[torch.Tensor], Any],
) -> torch.Tensor:
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


def candidate_log_probs(
    teacher: Any,
    src_tokens: torch.Tensor,
    candidates: Sequence[Sequence[torch.Tensor]],
    dictionary: Dictionary,
) -> Scores:
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
