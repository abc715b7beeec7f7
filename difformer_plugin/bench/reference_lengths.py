"""Make models with random weights produce outputs as long as the references.

Their own lengths would be arbitrary, and so would be the cost of decoding.
"""

import math
from typing import Any

import torch
from fairseq.data import Dictionary
from fairseq.search import BeamSearch
from torch import nn

from difformer_plugin.decoding.candidates import FRAME
from difformer_plugin.networks.encoder import LENGTH_CLASSES, OFFSET_CLASS
from difformer_plugin.networks.layers import Memory


class ReferenceLengths:
    """The reference lengths of a split, and those of the batch that is being translated.

    Args:
        num_tokens: int64 (N,), tokens of each reference of the split without BOS and EOS.
    """

    def __init__(self, num_tokens: torch.Tensor):
        self.num_tokens = num_tokens
        self.current: Any = None  # those of the batch, (B,)

    def select(self, numbers: torch.Tensor) -> None:
        """Name the sentences of the batch by their numbers (B,) in the split."""
        self.current = self.num_tokens[numbers]


class ReferenceLengthPredictor(nn.Module):
    """Replaces a length predictor: a length is the likelier the nearer to the reference's.

    A length beam of size b1 consists of the b1 lengths around the reference's.
    """

    def __init__(self, references: ReferenceLengths):
        super().__init__()
        self.references = references

    def forward(self, memory: Memory) -> torch.Tensor:
        """Logits of the length classes, (B, 256)."""
        logits = -(torch.arange(LENGTH_CLASSES, device=memory.mask.device) - OFFSET_CLASS).abs()
        return logits.float().expand(len(memory.mask), -1)

    def lengths(self, memory: Memory) -> torch.Tensor:
        """The target length that each class stands for, (B, 256)."""
        offsets = torch.arange(LENGTH_CLASSES, device=memory.mask.device) - OFFSET_CLASS
        return self.references.current[:, None] + FRAME + offsets


class ReferenceSearch(BeamSearch):
    """fairseq's beam search, except that a hypothesis ends exactly at its reference's length."""

    def __init__(self, dictionary: Dictionary, references: ReferenceLengths):
        super().__init__(dictionary)
        self.references = references

    def step(self, step, lprobs, scores, prev_output_tokens=None, original_batch_idxs=None):
        """See `BeamSearch.step`; `original_batch_idxs` are the sentences' numbers in the split."""
        ends = self.references.num_tokens[original_batch_idxs] <= step
        end_scores = lprobs[..., self.eos].masked_fill(~ends[:, None], -math.inf)
        lprobs[ends] = -math.inf
        lprobs[..., self.eos] = end_scores
        return super().step(step, lprobs, scores, prev_output_tokens, original_batch_idxs)


def predict_reference_lengths(decoder: nn.Module, references: ReferenceLengths) -> None:
    """Make the decoder of fairseq's CMLM predict the lengths of the references."""

    def forward_length_prediction(length_out, encoder_out, tgt_tokens=None):
        return references.current + FRAME

    decoder.forward_length_prediction = forward_length_prediction
