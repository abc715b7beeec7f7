"""Reference lengths for models with random weights, whose own lengths would mean nothing."""

import math

import torch
from fairseq.search import BeamSearch
from torch import nn

from difformer_plugin.decoding.candidates import FRAME
from difformer_plugin.networks.encoder import LENGTH_CLASSES, OFFSET_CLASS


class References:
    """The lengths of the references of a split, and of those in the batch at hand.

    Args:
        subwords: int64 (N,), of all references, without what frames them.
    """

    def __init__(self, subwords):
        self.subwords, self.current = subwords, None

    def aim(self, numbers):
        """The batch at hand holds these sentences."""
        self.current = self.subwords[numbers]


class ReferenceLengths(nn.Module):
    """In the length predictor's place: the nearer to the reference's, the likelier.

    So a beam of b1 lengths is the b1 lengths around it.
    """

    def __init__(self, references):
        super().__init__()
        self.references = references

    def forward(self, memory):
        """Logits (B, 256)."""
        logits = -(torch.arange(LENGTH_CLASSES, device=memory.mask.device) - OFFSET_CLASS).abs()
        return logits.float().expand(len(memory.mask), -1)

    def lengths(self, memory):
        """The target length that each class stands for (B, 256)."""
        around = torch.arange(LENGTH_CLASSES, device=memory.mask.device) - OFFSET_CLASS
        return self.references.current[:, None] + FRAME + around


class ReferenceSearch(BeamSearch):
    """fairseq's beam search, in which a sentence ends when it is as long as its reference.

    All hypotheses of a sentence so end at the same step, none before.
    """

    def __init__(self, dictionary, references):
        super().__init__(dictionary)
        self.references = references

    def step(self, step, lprobs, scores, prev_output_tokens=None, original_batch_idxs=None):
        """As in `BeamSearch`; `original_batch_idxs` are the sentences' numbers in the split."""
        ends = self.references.subwords[original_batch_idxs] <= step
        end_scores = lprobs[..., self.eos].masked_fill(~ends[:, None], -math.inf)
        lprobs[ends] = -math.inf
        lprobs[..., self.eos] = end_scores
        return super().step(step, lprobs, scores, prev_output_tokens, original_batch_idxs)


def aim_at_references(decoder, references):
    """Make the decoder of a CMLM predict the reference's length."""

    def forward_length_prediction(length_out, encoder_out, tgt_tokens=None):
        return references.current + FRAME

    decoder.forward_length_prediction = forward_length_prediction
