"""How long a target is: predicted as in other families, or found by generating padding."""

from typing import Any

import torch
from torch import nn

from difformer_plugin.networks.encoder import LengthPredictor
from difformer_plugin.networks.layers import init_bert


class PaddedLengths(nn.Module):
    """One length for each source: its own and a margin. The target ends at its first EOS.

    It stands for a LengthPredictor. What follows the target is EOS as well, which so is the
    padding that the model learns to generate.

    Args:
        margin: positions that targets have beyond the length of their source.
        longest: the greatest length of a target.
    """

    def __init__(self, margin: int, longest: int):
        super().__init__()
        self.margin, self.longest = margin, longest

    def forward(self, memory: Any) -> torch.Tensor:
        """Logits of the only class, (B, 1)."""
        return torch.zeros(len(memory.mask), 1, device=memory.mask.device)

    def classes(self, lengths: torch.Tensor, memory: Any) -> torch.Tensor:
        """The class of each target, int64 (B,)."""
        return torch.zeros_like(lengths)

    def lengths(self, memory: Any) -> torch.Tensor:
        """The padded length of the target of each source, int64 (B, 1)."""
        return (memory.lengths() + self.margin).clamp(max=self.longest)[:, None]

    def pad(self, target: torch.Tensor, memory: Any, pad: int, eos: int) -> torch.Tensor:
        """Targets (B, L) with EOS up to their padded lengths, and then padding.

        A target that is longer than its source and the margin stays as it is.
        """
        order = target.eq(pad).byte().argsort(dim=1, stable=True)  # padding last
        own, target = target.ne(pad).sum(1, keepdim=True), target.gather(1, order)
        padded = self.lengths(memory).maximum(own)
        width = int(padded.max())
        rows = target.new_full((len(target), width), pad)
        rows[:, : target.shape[1]] = target[:, :width]
        places = torch.arange(width, device=target.device)
        return rows.masked_fill((places >= own) & (places < padded), eos)


def build_lengths(cfg: Any) -> LengthPredictor | PaddedLengths:
    """What fixes the lengths of targets before anything is drawn.

    Args:
        cfg: a JointDiffusionConfig.
    """
    if cfg.length_by_padding:
        return PaddedLengths(cfg.padding_margin, cfg.max_target_positions)
    predictor = LengthPredictor(cfg)
    if cfg.apply_bert_init:
        init_bert(predictor.embed_length)
    return predictor
