"""Partially decoded targets: current tokens and the log-probability of each."""

from dataclasses import dataclass

import torch


@dataclass
class Draft:
    """The state of the reverse process of discrete diffusion.

    It can be indexed by token and overwritten like a tensor with one row a token.

    Attributes:
        tokens: int64 (N,), the dictionary's indices and, for a mask, the one after the last.
        log_probs: float32 (N,), of the tokens when they were drawn; 0 for masks and the frame.
        lengths: int64 (n,), the tokens of each candidate; only after a step that changed them.
    """

    tokens: torch.Tensor
    log_probs: torch.Tensor
    lengths: torch.Tensor | None = None

    def __len__(self):
        return len(self.tokens)

    def __getitem__(self, rows):
        return Draft(self.tokens[rows], self.log_probs[rows])

    def copy_(self, other):
        """Overwrite this draft with another of the same size."""
        self.tokens.copy_(other.tokens)
        self.log_probs.copy_(other.log_probs)

    def placed(self, layout):
        """The same tokens, which lie one after another, with padding where the layout has some."""
        if layout.real is None:
            return Draft(self.tokens, self.log_probs)
        tokens = self.tokens.new_zeros(len(layout.real))  # nothing depends on what padding holds
        log_probs = self.log_probs.new_zeros(len(layout.real))
        tokens[layout.real], log_probs[layout.real] = self.tokens, self.log_probs
        return Draft(tokens, log_probs)
