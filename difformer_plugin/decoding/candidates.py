"""Which lengths to try: a beam from the predictor, a window around its best, or a forced one."""

from typing import Any, NamedTuple

import torch

FRAME = 2  # a target's BOS and EOS, which lengths count
# Options that are read where the length is predicted before anything is drawn.
LENGTH_OPTIONS = frozenset(
    {
        "block_size",
        "decoding_autoregressive",
        "force_length",
        "force_length_ratio",
        "length_beam_size",
        "length_beam_window",
        "race_after",
        "race_keep",
    }
)


class Drawn(NamedTuple):
    """A candidate that has been drawn, on the host."""

    tokens: torch.Tensor  # int64 (L,), with BOS and EOS where the model put them
    log_probs: torch.Tensor  # float32 (L,), of the tokens in the rounding
    steps: int  # of the reverse process that were taken
    history: list  # for each of them tokens (L,) and log-probabilities (L,), if it was to be kept
    dropped: bool = False  # it lost a race: not to be chosen, but evidence for the others


def length_beam(
    logits: torch.Tensor, lengths: torch.Tensor, size: int, longest: int, window: bool = False
) -> torch.Tensor:
    """Target lengths to try for each sentence, the likeliest first unless `window`.

    Args:
        logits: (B, C), the length predictor's.
        lengths: (B, C), the length that each class stands for.
        size: b1.
        longest: the greatest length that the model can have.
        window: take b1 consecutive lengths around the likeliest.
    Returns:
        int64 (B, b1), between 2 and `longest`. Distinct as far as so many lengths are
        possible; a window is cut off at its ends.
    """
    possible = (lengths >= FRAME) & (lengths <= longest)
    logits = logits.float().masked_fill(~possible, -torch.inf)
    # A stable sort: ties keep their order, in whatever batch.
    order = logits.argsort(dim=-1, descending=True, stable=True)
    if window:
        around = torch.arange(size, device=lengths.device) - size // 2
        return (lengths.gather(1, order[:, :1]) + around).clamp(FRAME, longest)
    return lengths.gather(1, order[:, :size]).clamp(FRAME, longest)


def forced_lengths(source_lengths: torch.Tensor, options: Any, longest: int) -> torch.Tensor:
    """The length that --force-length or --force-length-ratio asks for, int64 (B, 1).

    Args:
        source_lengths: (B,), with BOS and EOS.
    """
    if options.force_length is not None:
        subwords = torch.full_like(source_lengths, options.force_length)
    else:
        subwords = ((source_lengths - FRAME) * options.force_length_ratio).round().long()
    return (subwords.clamp(min=1) + FRAME).clamp(max=longest)[:, None]
