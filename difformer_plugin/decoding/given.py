"""Tokens that are given before anything is drawn: decoding fills in the others.

Infilling overwrites given positions at every step. What is given is in the output, always.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn import functional as F

from difformer_plugin.diffusion.sampler import Noise
from difformer_plugin.families.contract import Family
from difformer_plugin.networks.layout import Layout

FREE = -1  # in the place of a token that is not given


class GivenTokens:
    """The given tokens of n candidates, and how many that lead them are not part of the target.

    Args:
        tokens: int64 (n, W), by position in the candidate; FREE where a token is drawn.
        leading: number of the first tokens of each candidate, n integers, that are no target but
            what the model reads of the source (see `Family.leading_tokens`).
        joined: bool (n, W), only of candidates that grow, which begin with these tokens: those that
            the next one follows at once.
    """

    def __init__(
        self, tokens: torch.Tensor, leading: Sequence[int], joined: torch.Tensor | None = None
    ):
        self.tokens, self.leading, self.joined = tokens, leading, joined

    @classmethod
    def collect(
        cls,
        model: Family,
        memory: Any,
        owners: Sequence[int],
        given: torch.Tensor | None = None,
    ) -> "GivenTokens | None":
        """What is given of some candidates; None if nothing is.

        Args:
            owners: the source of each candidate, n integers.
            given: int64 (n, L), the given tokens of the targets, FREE elsewhere; None for none.
                Where lengths grow, a FREE stands for any number of tokens, and BOS and EOS are
                given.
        """
        if not model.predicts_length:
            return None if given is None else cls._growing(given)
        leading = model.leading_tokens(memory)
        if leading is None:
            return None if given is None else cls(given, [0] * len(owners))
        rows = torch.tensor(owners, device=leading.device)
        lengths = leading.ne(FREE).sum(1)[rows]
        if given is None:
            return cls(leading[rows], lengths.tolist())
        # the target's follow the leading ones, of which there are not equally many
        both = leading.new_full((len(rows), leading.shape[1] + given.shape[1]), FREE)
        both[:, : leading.shape[1]] = leading[rows]
        both.scatter_(1, lengths[:, None] + torch.arange(given.shape[1], device=rows.device), given)
        return cls(both, lengths.tolist())

    @classmethod
    def _growing(cls, given: torch.Tensor) -> "GivenTokens":
        """The tokens that growing candidates begin with, without what is FREE between them."""
        fixed = given != FREE
        joined = F.pad(fixed[:, 1:], (0, 1)) & fixed
        order = (~fixed).byte().argsort(dim=1, stable=True)
        return cls(given.gather(1, order), [0] * len(given), joined.gather(1, order))

    def select(self, numbers: Sequence[int]) -> "GivenTokens":
        """Those of some of the candidates, by their numbers."""
        rows = torch.tensor(numbers, device=self.tokens.device)
        joined = None if self.joined is None else self.joined[rows]
        return GivenTokens(self.tokens[rows], [self.leading[i] for i in numbers], joined)

    def first_lengths(self, lengths: torch.Tensor) -> torch.Tensor:
        """The lengths that candidates begin with, int64 (n,), from those of the targets."""
        if self.joined is not None:
            return self.tokens.ne(FREE).sum(1)
        return lengths + torch.tensor(self.leading, device=lengths.device)

    def at(self, layout: Layout) -> torch.Tensor:
        """The given tokens of a layout of all n candidates, int64 (N,); FREE at padding.

        Growing candidates have them in their state, wherever they are by now: FREE throughout.
        """
        if self.joined is not None:
            return torch.full_like(layout.positions, FREE)
        return _at(self.tokens, layout, FREE)

    def first_draft(self, layout: Layout) -> tuple[torch.Tensor, torch.Tensor]:
        """The tokens that growing candidates begin with, and which are joined: (N,) each."""
        assert self.joined is not None
        return _at(self.tokens, layout, FREE), _at(self.joined, layout, False)


def _at(values: torch.Tensor, layout: Layout, filler: Any) -> torch.Tensor:
    """Values by position (n, W) as those of the tokens of a layout (N,)."""
    beyond = layout.positions >= values.shape[1]
    positions = layout.positions.clamp(max=values.shape[1] - 1)
    found = values[layout.rows, positions].masked_fill(beyond, filler)
    return found if layout.real is None else found.masked_fill(~layout.real, filler)


class Infilling:
    """The given tokens in the reverse process of a model.

    Args:
        sampler: how given tokens are overwritten in its states.
        noise: function of the step -> the step's noise.
        tokens: the given tokens at present, int64 (N,).
        layout: the layout at present.
        first_draft: the tokens that growing candidates begin with, and which are joined, (N,) each.
    """

    def __init__(
        self,
        model: Family,
        sampler: Any,
        noise: Callable[[int], torch.Tensor],
        tokens: Callable[[], torch.Tensor],
        layout: Callable[[], Layout],
        first_draft: Callable[[Layout], tuple[torch.Tensor, torch.Tensor]],
    ):
        self.model, self.sampler, self.noise = model, sampler, noise
        self.tokens, self.layout, self.first_draft = tokens, layout, first_draft

    def state(self, z: Any, k: int) -> Any:
        """The state that step k begins from, with the given tokens in it."""
        if self.sampler.grows:
            first = k == len(self.sampler.times) - 1
            return self.sampler.begin(*self.first_draft(self.layout())) if first else z
        tokens = self.tokens()
        given = tokens != FREE
        clean = self.model.clean_state(tokens.clamp(min=0))
        noise: Noise = lambda: self.noise(len(self.sampler.times) + 1 + k)  # noqa: E731
        return self.sampler.impose(z, clean, given, k, noise, self.layout())

    def prediction(self, prediction: torch.Tensor) -> torch.Tensor:
        """A prediction, as of `Family.predict`, in which the given tokens are certain."""
        tokens = self.tokens()
        return self.model.certain(prediction, tokens.clamp(min=0), tokens != FREE)


def fill_in(
    rounded: tuple[torch.Tensor, torch.Tensor], given: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rounded tokens (N,) and their log-probabilities (N,) with the given tokens, which are sure.

    Args:
        given: int64 (N,), FREE where nothing is given.
    """
    tokens, log_probs = rounded
    fixed = given != FREE
    return torch.where(fixed, given, tokens), log_probs.masked_fill(fixed, 0.0)
