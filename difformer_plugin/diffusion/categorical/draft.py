"""Partially decoded targets: current tokens and the log-probability of each."""

from dataclasses import dataclass
from typing import Any

import torch

from difformer_plugin.diffusion.sampler import Layout


@dataclass
class Draft:
    """The state of the reverse process of discrete diffusion.

    It can be indexed by token and overwritten like a tensor with one row a token.

    Attributes:
        tokens: int64 (N,), the dictionary's indices and, for a mask, the one after the last.
        log_probs: float32 (N,), of the tokens when they were drawn; 0 for masks and the frame.
        lengths: int64 (n,), the tokens of each candidate; only after a step that changed them.
        joined: bool (N,), tokens that the next one follows at once for good, so that nothing is
            inserted between them; None if there are none.
        given: bool (N,), tokens fixed by the user, which the sampler leaves alone; or None.
    """

    tokens: torch.Tensor
    log_probs: torch.Tensor
    lengths: torch.Tensor | None = None
    joined: torch.Tensor | None = None
    given: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, rows: Any) -> "Draft":
        marks = (mark if mark is None else mark[rows] for mark in (self.joined, self.given))
        return Draft(self.tokens[rows], self.log_probs[rows], None, *marks)

    def copy_(self, other: "Draft") -> None:
        """Overwrite the tokens of this draft with those of another of the same size.

        What is given stays as it is: `impose` sets it at the beginning of each step.
        """
        self.tokens.copy_(other.tokens)
        self.log_probs.copy_(other.log_probs)

    def placed(self, layout: Layout) -> "Draft":
        """The same tokens with padding where the layout has some.

        What is given is left out: `impose` sets it at the beginning of each step.

        Args:
            layout: of all positions, (N,) or with padding (M,).
        Returns:
            a draft of (N,) or (M,) tokens; those of padding are 0.
        """
        if layout.real is None:
            return Draft(self.tokens, self.log_probs, joined=self.joined)
        tokens = self.tokens.new_zeros(len(layout.real))  # nothing depends on what padding holds
        log_probs = self.log_probs.new_zeros(len(layout.real))
        tokens[layout.real], log_probs[layout.real] = self.tokens, self.log_probs
        joined = None
        if self.joined is not None:
            joined = torch.zeros_like(layout.real)
            joined[layout.real] = self.joined
        return Draft(tokens, log_probs, joined=joined)
