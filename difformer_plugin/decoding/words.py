"""Word generation (Sec. 3.2.2 of the thesis): one word after the other, each by diffusion.

Before each word the source is read again with the words so far, from which the number of the next
word's tokens is predicted.
"""

from typing import Any

import torch
from fairseq.data import Dictionary
from torch.nn.utils.rnn import pad_sequence

from difformer_plugin.decoding.blocks import Decode
from difformer_plugin.decoding.candidates import FRAME, Drawn
from difformer_plugin.decoding.given import FREE
from difformer_plugin.diffusion.noise import candidate_keys
from difformer_plugin.errors import UserError
from difformer_plugin.families.contract import Family
from difformer_plugin.networks.layers import Memory

# A target has at most so many tokens for each token of its source, and so many more.
TOKENS_PER_SOURCE_TOKEN, SPARE_TOKENS = 3, 50
PREFIXES_ALONE = (
    "this model was trained with --generate-words and writes from left to right: given words "
    "can only be a prefix"
)


def decode(
    draw: Decode,
    dictionary: Dictionary,
    src_tokens: torch.Tensor,
    model: Family,
    options: Any,
    memory: Memory,
    lengths: torch.Tensor,
    keys: torch.Tensor,
    history: bool = False,
    given: torch.Tensor | None = None,
) -> list[Drawn]:
    """Draw the candidates of a batch, word by word.

    A candidate ends at its first EOS, or at `longest_targets`: each word has a token at least. The
    noise of a candidate's first word is that of sampling its first tokens at once.

    Args:
        draw: draws a word.
        src_tokens: int64 (B, S), the sources that `memory` is of.
        lengths: (B, b), of which only the shape is read.
        given: int64 (B b, W), how targets begin, before a -1; see `placement.place`.
    Returns:
        B x b candidates, a sentence's one after another; their steps are those of all words.
    Raises:
        UserError: anything but the beginning of a target is given.
    """
    count, device = lengths.numel(), src_tokens.device
    rows_given = [[dictionary.bos()]] * count if given is None else given.tolist()
    if given is None:  # an empty source has an empty target
        for s in (src_tokens.ne(dictionary.pad()).sum(1) <= FRAME).nonzero()[:, 0].tolist():
            for i in range(s * lengths.shape[1], (s + 1) * lengths.shape[1]):
                rows_given[i] = [dictionary.bos(), dictionary.eos()]
    drawn = [begun(row, dictionary.eos()) for row in rows_given]
    sources = src_tokens.repeat_interleave(lengths.shape[1], dim=0)
    most = longest_targets(model, sources.ne(dictionary.pad()).sum(1).tolist(), drawn)
    active, number = list(range(count)), 0

    def goes_on(i: int) -> bool:
        return drawn[i].tokens[-1] != dictionary.eos() and len(drawn[i].tokens) < most[i]

    while active := [i for i in active if goes_on(i)]:
        rows = torch.tensor(active, device=device)
        sentences = rows // lengths.shape[1]
        so_far = pad_sequence([drawn[i].tokens for i in active], True, dictionary.pad())
        read = model.encoder(torch.cat([src_tokens[sentences], so_far.to(device)], dim=1))
        room = torch.tensor([most[i] - len(drawn[i].tokens) for i in active], device=device)
        words = draw(
            model,
            options,
            read,
            word_lengths(model, read, room)[:, None],
            candidate_keys(keys[sentences], rows % lengths.shape[1], number),
            history,
        )
        for i, word in zip(active, words):
            drawn[i] = followed(drawn[i], word, dictionary.eos())
        number += 1
    return drawn


def longest_targets(model: Family, sources: list[int], drawn: list[Drawn]) -> list[int]:
    """How many tokens each candidate has at most, with BOS and EOS.

    A model that has hardly been trained writes no EOS.

    Args:
        sources: the number of tokens of its source, with BOS and EOS.
        drawn: how the candidates begin, with BOS.
    """
    longest = model.max_positions()[1]
    return [
        min(longest, (size - FRAME) * TOKENS_PER_SOURCE_TOKEN + SPARE_TOKENS + len(own.tokens) + 1)
        for size, own in zip(sources, drawn, strict=True)
    ]


def begun(row: list[int], eos: int) -> Drawn:
    """A candidate that begins with given tokens.

    Args:
        row: its given tokens, FREE where words are to be drawn; EOS may follow.
    Raises:
        UserError: other tokens follow.
    """
    size = row.index(FREE) if FREE in row else len(row)
    if not {FREE, eos}.issuperset(row[size:]):
        raise UserError(PREFIXES_ALONE)
    return Drawn(torch.tensor(row[:size]), torch.zeros(size), 0, [])


def word_lengths(model: Family, memory: Memory, room: torch.Tensor) -> torch.Tensor:
    """The likeliest number of tokens of each next word, int64 (A,), from 1 to its room.

    Args:
        memory: of the sources with the words so far.
        room: int64 (A,), at least 1.
    """
    assert model.length_predictor is not None
    lengths = model.length_predictor.lengths(memory)
    possible = (lengths >= 1) & (lengths <= room[:, None])
    logits = model.length_predictor(memory).float().masked_fill(~possible, -torch.inf)
    return lengths.gather(1, logits.argmax(1, keepdim=True))[:, 0]


def followed(before: Drawn, word: Drawn, eos: int) -> Drawn:
    """A candidate with one more word, up to an EOS in it."""
    ends = (word.tokens == eos).nonzero()[:, 0].tolist()
    size = ends[0] + 1 if ends else len(word.tokens)

    def joined(tokens: torch.Tensor, log_probs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.cat([before.tokens, tokens]), torch.cat([before.log_probs, log_probs])

    tokens, log_probs = joined(word.tokens[:size], word.log_probs[:size])
    return Drawn(
        tokens,
        log_probs,
        before.steps + word.steps,
        before.history + [joined(*step) for step in word.history],
    )
