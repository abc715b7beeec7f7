"""Training for word generation (Alg. 9 of the thesis): one word after those before it.

The words before are read as the end of the source, s EOS BOS w_1 ... w_{i-1}. The end of a target
is a word of its own.
"""

from typing import NamedTuple

import torch
from fairseq.data import Dictionary
from torch import nn
from torch.nn import functional as F

from difformer_plugin.data.word_marks import Joins


class NextWord(NamedTuple):
    """Examples of training, padded on the right."""

    source: torch.Tensor  # int64 (B, S), each source and the words before the chosen one
    word: torch.Tensor  # int64 (B, L), the tokens of the chosen word
    places: torch.Tensor  # int64 (B, L), where they are among the positions of all targets


class Words(nn.Module):
    """Splits targets into words. Which types continue a word is part of the checkpoint.

    Args:
        dictionary: of the targets.
    """

    def __init__(self, dictionary: Dictionary):
        super().__init__()
        self.pad, self.eos = dictionary.pad(), dictionary.eos()
        for name in Joins._fields:
            # 0 or 1: moving averages of weights (--store-ema) include buffers
            self.register_buffer(f"joins_{name}", torch.zeros(len(dictionary)))

    def set_joins(self, joins: Joins) -> None:
        """Set which types belong to the word of a neighbour; at first none does."""
        for name, own in joins._asdict().items():
            getattr(self, f"joins_{name}").copy_(own)

    def numbers(self, target: torch.Tensor) -> torch.Tensor:
        """The number of the word that each token belongs to, int64 (B, L); 0 is BOS.

        Args:
            target: int64 (B, L), from BOS to EOS, padded on the right.
        """
        before, after = target[:, :-1], target[:, 1:]
        joins_next, joins_previous = self.joins_next > 0.5, self.joins_previous > 0.5
        begins = ~(joins_next[before] | joins_previous[after]) | (after == self.eos)
        begins[:, :1] = True  # whatever its mark
        return F.pad(begins.long().cumsum(1), (1, 0))

    def choose(self, source: torch.Tensor, target: torch.Tensor, u: torch.Tensor) -> NextWord:
        """One word of each target, all of them equally likely.

        Args:
            source: int64 (B, S), padded on either side.
            u: uniform numbers in [0, 1), (B,).
        """
        real, numbers = target.ne(self.pad), self.numbers(target)
        count = numbers.masked_fill(~real, 0).amax(1)
        # a float32 times a large count may round up to it
        chosen = ((u * count).long() + 1).minimum(count)[:, None]
        so_far = target.masked_fill(numbers >= chosen, self.pad)
        places = torch.arange(target.numel(), device=target.device).view_as(target)
        own = target.masked_fill(numbers != chosen, self.pad)
        order, width = _order(own, self.pad)
        read = torch.cat([source, so_far], dim=1)
        first, source_width = _order(read, self.pad)
        return NextWord(
            read.gather(1, first)[:, :source_width],
            own.gather(1, order)[:, :width],
            places.gather(1, order)[:, :width],
        )


def _order(tokens: torch.Tensor, pad: int) -> tuple[torch.Tensor, int]:
    """An order of positions (B, L) with padding last, and the width of the longest row."""
    padding = tokens.eq(pad)
    return padding.byte().argsort(dim=1, stable=True), int((~padding).sum(1).max())
