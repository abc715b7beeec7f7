"""Left-to-right sampling in blocks (Alg. 8 of the thesis in docs/paper-to-code.md).

A whole reverse process draws what is left of a target, of which only the first block is kept. The
next process draws what follows it, with all that was kept as given tokens.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from difformer_plugin.decoding.candidates import Drawn
from difformer_plugin.decoding.given import FREE
from difformer_plugin.diffusion.noise import candidate_keys
from difformer_plugin.families.contract import Family
from difformer_plugin.networks.layers import Memory

FIRST = 1  # place of the first subword; BOS is drawn with the first block, EOS with the last
Decode = Callable[..., list[Drawn]]  # `engine.decode` or `oracle.decode`


def decode(
    draw: Decode,
    eos: int,
    model: Family,
    options: Any,
    memory: Memory,
    lengths: torch.Tensor,
    keys: torch.Tensor,
    history: bool = False,
    given: torch.Tensor | None = None,
) -> list[Drawn]:
    """Draw the candidates of a batch, --block-size subwords at a time.

    A candidate ends at its length. An EOS in an earlier block ends it too, unless a token after it
    is given. Log-probabilities are those with which tokens were kept. Each block has noise of its
    own; the first has that of sampling all at once, which a block as long as the target therefore
    equals. Only the first block is a race.

    Args:
        draw: draws all at once; the others: see `oracle.decode`.
        eos: index of EOS.
    """
    beam = lengths.shape[1]
    ends = lengths.flatten().tolist()
    wanted = _last_given(given, len(ends))
    drawn = draw(model, options, memory, lengths, keys, history, given=given)
    later = replace(options, race_after=0, race_keep=1)
    active = [i for i, own in enumerate(drawn) if not own.dropped]
    block = 0
    while True:
        begin = FIRST + block * options.block_size
        end = begin + options.block_size
        active = [i for i in active if end < ends[i] - 1]
        for i in active:
            drawn[i] = _ended(drawn[i], begin, end, eos, wanted[i])
        active = [i for i in active if len(drawn[i].tokens) == ends[i]]
        if not active:
            return drawn
        block += 1
        rows = torch.tensor(active, device=lengths.device)
        sentences = rows // beam
        follows = draw(
            model,
            later,
            memory.select(sentences),
            lengths.flatten()[rows][:, None],
            candidate_keys(keys[sentences], rows % beam, block),
            history,
            given=_given([drawn[i] for i in active], end, given, rows),
        )
        for i, own in zip(active, follows):
            drawn[i] = continued(drawn[i], own, end)


def continued(before: Drawn, after: Drawn, end: int) -> Drawn:
    """A candidate of which `end` tokens were kept, and what was then drawn to follow them."""

    def joined(log_probs: torch.Tensor) -> torch.Tensor:
        return torch.cat([before.log_probs[:end], log_probs[end:]])

    return Drawn(
        after.tokens,
        joined(after.log_probs),
        before.steps + after.steps,
        before.history + [(tokens, joined(p)) for tokens, p in after.history],
    )


def _last_given(given: torch.Tensor | None, count: int) -> list[int]:
    """The place of the last given token of each candidate; -1 if there is none."""
    if given is None:
        return [-1] * count
    places = torch.arange(given.shape[1], device=given.device)
    return torch.where(given != FREE, places, -1).amax(1).tolist()


def _ended(drawn: Drawn, begin: int, end: int, eos: int, wanted: int) -> Drawn:
    """A candidate, up to an EOS in a block if no given token, the last being `wanted`, follows."""
    for place in (drawn.tokens[begin:end] == eos).nonzero()[:, 0].tolist():
        if (stop := begin + place + 1) > wanted:
            return drawn._replace(tokens=drawn.tokens[:stop], log_probs=drawn.log_probs[:stop])
    return drawn


def _given(
    drawn: list[Drawn], end: int, given: torch.Tensor | None, rows: torch.Tensor
) -> torch.Tensor:
    """The first `end` tokens of candidates, and what else is given of them, (A, W)."""
    kept = torch.stack([own.tokens[:end] for own in drawn]).to(rows.device)
    if given is None or given.shape[1] <= end:
        return kept
    return torch.cat([kept, given[rows, end:]], dim=1)
