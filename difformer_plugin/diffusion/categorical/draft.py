"""A target on its way: its tokens by now, and how likely each was when it was drawn."""

from dataclasses import dataclass

import torch


@dataclass
class Draft:
    """The state of the reverse process of discrete diffusion.

    It is indexed and copied to as a tensor with one row a token is.

    Attributes:
        tokens: int64 (N,), the dictionary's indices and, for a mask, the one after the last.
        log_probs: float32 (N,), of the tokens when they were drawn; 0 for masks and the frame.
        lengths: int64 (n,), how many of the tokens each candidate has, where a step has changed it.
    """

    tokens: torch.Tensor
    log_probs: torch.Tensor
    lengths: torch.Tensor | None = None

    def __len__(self):
        return len(self.tokens)

    def __getitem__(self, rows):
        return Draft(self.tokens[rows], self.log_probs[rows])

    def copy_(self, other):
        """Take another's numbers."""
        self.tokens.copy_(other.tokens)
        self.log_probs.copy_(other.log_probs)

    def placed(self, layout):
        """Tokens that lie one after another, with padding where a layout has some."""
        if layout.real is None:
            return Draft(self.tokens, self.log_probs)
        tokens = self.tokens.new_zeros(len(layout.real))  # what padding is, nothing depends on
        log_probs = self.log_probs.new_zeros(len(layout.real))
        tokens[layout.real], log_probs[layout.real] = self.tokens, self.log_probs
        return Draft(tokens, log_probs)
