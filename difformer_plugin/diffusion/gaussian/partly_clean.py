"""Latents of which some tokens are decided: they are z_0 itself, while the others are noisy."""

from dataclasses import dataclass
from typing import Any

import torch


@dataclass
class PartlyClean:
    """A state of the reverse process that can be indexed by token and overwritten like a tensor.

    Attributes:
        z: (N, D), z_0 of tokens that are decided, z_t of the others.
        clean: bool (N,), which are decided.
        log_probs: float32 (N,), of tokens when they were last predicted.
        tokens: int64 (N,), the types of tokens that the sampler has decided; anything where a
            token is given, which `decoding.given.fill_in` sets.
        given: bool (N,), tokens fixed by the user, which the sampler does not count; or None.
    """

    z: torch.Tensor
    clean: torch.Tensor
    log_probs: torch.Tensor
    tokens: torch.Tensor
    given: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.z)

    def __getitem__(self, rows: Any) -> "PartlyClean":
        given = None if self.given is None else self.given[rows]
        return PartlyClean(
            self.z[rows], self.clean[rows], self.log_probs[rows], self.tokens[rows], given
        )

    def copy_(self, other: Any) -> None:
        """Overwrite this state with another of the same size, or with latents (N, D), all noisy.

        What is given stays as it is: `impose` sets it at the beginning of each step.
        """
        if isinstance(other, PartlyClean):
            self.z.copy_(other.z)
            self.clean.copy_(other.clean)
            self.log_probs.copy_(other.log_probs)
            self.tokens.copy_(other.tokens)
        else:
            self.z.copy_(other)
            self.clean.zero_()

    @classmethod
    def noisy(cls, z: torch.Tensor) -> "PartlyClean":
        """The state in which no token is decided."""
        none = z.new_zeros(len(z), dtype=torch.bool)
        return cls(z, none, none.float(), none.long())

    def completed(self, latents: torch.Tensor) -> torch.Tensor:
        """z_0 where it is decided and other latents elsewhere, (N, D)."""
        return torch.where(self.clean[:, None], self.z.to(latents.dtype), latents)
