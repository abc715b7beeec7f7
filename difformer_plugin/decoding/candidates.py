"""Which lengths to try: a beam from the predictor, a window around its best, or a forced one."""

from typing import Any, NamedTuple

import torch

FRAME = 2  # a target's BOS and EOS, which lengths count
# Options that choose the lengths of targets, where these are predicted.
TRIED_LENGTH_OPTIONS = frozenset(
    {
        "force_length",
        "force_length_ratio",
        "length_beam_size",
        "length_beam_window",
        "length_scale",
    }
)
# Options that are read where the number of positions is fixed before anything is drawn.
LENGTH_OPTIONS = TRIED_LENGTH_OPTIONS | frozenset(
    {"block_size", "decoding_autoregressive", "race_after", "race_keep"}
)


class Drawn(NamedTuple):
    """A candidate that has been drawn, on the host."""

    tokens: torch.Tensor  # int64 (L,), with BOS and EOS where the model put them
    log_probs: torch.Tensor  # float32 (L,), of the tokens in the rounding
    steps: int  # of the reverse process that were taken
    history: list  # for each of them tokens (L,) and log-probabilities (L,), if it was to be kept
    dropped: bool = False  # it lost a race: not to be chosen, but evidence for the others


def length_beam(
    logits: torch.Tensor,
    lengths: torch.Tensor,
    size: int,
    longest: int,
    window: bool = False,
    least: torch.Tensor | None = None,
    scale: float | torch.Tensor = 1.0,
) -> torch.Tensor:
    """Target lengths to try for each sentence, the likeliest first unless `window`.

    Args:
        logits: (B, C), the length predictor's.
        lengths: (B, C), the length that each class stands for.
        size: b1.
        longest: the greatest length that the model can have.
        window: take b1 consecutive lengths around the likeliest.
        least: int64 (B,), the least length of each sentence, at most `longest`; None for 2.
        scale: multiplies the lengths found, BOS and EOS left out; a number, or float (B, 1).
    Returns:
        int64 (B, b1), between the least length and `longest`. Distinct as far as so many lengths
        are possible, unless the scale is below 1; a window is cut off at its ends.
    """
    if least is None:
        least = torch.full_like(lengths[:, 0], FRAME)
    possible = (lengths >= least[:, None]) & (lengths <= longest)
    logits = logits.float().masked_fill(~possible, -torch.inf)
    # A stable sort: ties keep their order, in whatever batch.
    order = logits.argsort(dim=-1, descending=True, stable=True)
    if window:
        around = torch.arange(size, device=lengths.device) - size // 2
        found = lengths.gather(1, order[:, :1]) + around
    else:
        found = lengths.gather(1, order[:, :size])
    found = ((found - FRAME) * scale).round().long() + FRAME
    return found.clamp(max=longest).maximum(least[:, None])


def forced_lengths(source_lengths: torch.Tensor, options: Any, longest: int) -> torch.Tensor:
    """The length that --force-length or --force-length-ratio asks for, int64 (B, 1).

    Args:
        source_lengths: (B,), with BOS and EOS.
    """
    if options.force_length is not None:
        subwords = torch.full_like(source_lengths, options.force_length)
    else:
        subwords = ((source_lengths - FRAME) * options.force_length_ratio).round()
    return subwords.clamp(min=1, max=longest - FRAME).long()[:, None] + FRAME


def collapsed(candidate: Drawn) -> Drawn:
    """A candidate without tokens that equal the one before them; its history stays."""
    keep = torch.ones_like(candidate.tokens, dtype=torch.bool)
    keep[1:] = candidate.tokens[1:] != candidate.tokens[:-1]
    tokens, log_probs = candidate.tokens[keep], candidate.log_probs[keep]
    return candidate._replace(tokens=tokens, log_probs=log_probs)


def repeats_something(tokens: torch.Tensor, pad: int) -> list[bool]:
    """Whether a token of each sentence (B, S), padded on either side, equals the one before it."""
    return ((tokens[:, 1:] == tokens[:, :-1]) & tokens[:, 1:].ne(pad)).any(1).tolist()


def until_eos(candidate: Drawn, eos: int, given: torch.Tensor | None = None) -> Drawn:
    """A candidate up to its first EOS, in each step of its history as well.

    Args:
        given: int64 (W,), its given tokens, below 0 elsewhere. Those that follow the EOS stay, with
            an EOS behind them.
    """

    def cut(tokens: torch.Tensor, log_probs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        ends = (tokens == eos).nonzero()[:, 0]
        if len(ends) == 0:
            return tokens, log_probs
        kept = torch.arange(len(tokens), device=tokens.device) < ends[0]
        if given is not None:
            kept[: len(given)] |= given[: len(tokens)] >= 0
        order = torch.cat([(kept & (tokens != eos)).nonzero()[:, 0], ends[:1]])
        return tokens[order], log_probs[order]

    tokens, log_probs = cut(candidate.tokens, candidate.log_probs)
    return candidate._replace(
        tokens=tokens, log_probs=log_probs, history=[cut(*step) for step in candidate.history]
    )


def hypothesis(candidate: Drawn, score: float) -> dict[str, Any]:
    """A candidate as the dictionary that fairseq expects."""
    return {
        "steps": candidate.steps,
        "tokens": candidate.tokens,
        "positional_scores": candidate.log_probs,
        "score": candidate.log_probs.new_tensor(score),
        "hypo_attn": None,
        "alignment": None,
        "history": [{"tokens": t, "positional_scores": p} for t, p in candidate.history],
    }
