"""How the tokens of a batch are arranged: packed into one matrix, and padded for attention.

Everything in a Transformer except attention acts on each token separately, so it is computed on a
packed matrix (N, C) of tokens. Attention needs a padded tensor (rows, width, C), whose rows hold
the tokens that attend to each other.
"""

from collections.abc import Sequence
from functools import cached_property

import torch


class Rows:
    """Converts between N packed tokens and n rows of a padded tensor.

    A row is a run of consecutive tokens. If all rows have the same length, packed and padded
    tensors are views of each other; otherwise tokens are gathered by index.

    Args:
        lengths: the number of tokens of each row, n integers of at least 1.
        device: the device of the tokens.

    Attributes:
        count: n, the number of rows.
        width: the length of the longest row.
        total: N, the number of tokens.
        even: whether all rows have the same length.
        mask: bool (n, width), True at tokens; only if not `even`.
    """

    def __init__(self, lengths: Sequence[int], device: torch.device):
        self.count, self.width, self.total = len(lengths), max(lengths), sum(lengths)
        self._lengths = lengths
        self.even = self.total == self.count * self.width
        if not self.even:
            slots = torch.arange(self.width).expand(self.count, -1)
            mask = slots < self.lengths[:, None]
            starts = (self.lengths.cumsum(0) - self.lengths)[:, None]
            self.mask = mask.to(device)
            # Padding repeats the row's last token: masked values do not matter but must be finite.
            self._tokens = (starts + slots.minimum(self.lengths[:, None] - 1)).flatten().to(device)
            self._slots = mask.flatten().nonzero()[:, 0].to(device)

    @cached_property
    def lengths(self) -> torch.Tensor:
        """The number of tokens of each row, int64 (n,) on the CPU."""
        return torch.tensor(self._lengths)

    def pad(self, x: torch.Tensor) -> torch.Tensor:
        """Packed tokens (N, C) -> padded rows (n, width, C)."""
        if not self.even:
            x = x.index_select(0, self._tokens)
        return x.view(self.count, self.width, -1)

    def pack(self, x: torch.Tensor) -> torch.Tensor:
        """Padded rows (n, width, C) -> packed tokens (N, C)."""
        x = x.flatten(0, 1)
        return x if self.even else x.index_select(0, self._slots)


class Layout:
    """The N tokens of n candidates of B sentences, in order of sentences and then of candidates.

    Args:
        lengths: the number of tokens of each candidate, n integers.
        sentences: the sentence of each candidate, n integers in ascending order from 0 to B - 1;
            every sentence occurs.
        device: the device of the tokens.
        mask: bool (n, L), True at real tokens, if all candidates are padded to the length L. If
            omitted, all tokens are real.

    Attributes:
        candidates: a row per candidate: the tokens that self-attention connects.
        sentences: a row per sentence: the tokens of all its candidates, which attend to its source.
        owners: the sentence of each candidate.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        sentences: Sequence[int],
        device: torch.device,
        mask: torch.Tensor | None = None,
    ):
        self.candidates = Rows(lengths, device)
        totals = [0] * (sentences[-1] + 1)
        for length, sentence in zip(lengths, sentences):
            totals[sentence] += length
        # With one candidate per sentence the rows are the same.
        self.sentences = self.candidates if len(totals) == len(lengths) else Rows(totals, device)
        self._padding, self.device, self.owners = mask, device, sentences
        self._places: torch.Tensor | None = None  # indices of the tokens in a flat padded tensor

    @classmethod
    def dense(cls, mask: torch.Tensor, candidates: int = 1) -> "Layout":
        """The same number of candidates for each sentence, padding included (N = n L).

        Args:
            mask: bool (n, L), True at real tokens.
            candidates: of each sentence, one after another.
        """
        count, width = mask.shape
        owners = [i // candidates for i in range(count)]
        return cls([width] * count, owners, mask.device, mask)

    @classmethod
    def packed(cls, mask: torch.Tensor, candidates: int = 1) -> "Layout":
        """The same number of candidates for each sentence, without padding.

        Args:
            mask: bool (n, L), True at real tokens.
            candidates: of each sentence, one after another.
        """
        owners = [i // candidates for i in range(len(mask))]
        layout = cls(mask.sum(1).tolist(), owners, mask.device)
        layout._places = mask.flatten().nonzero()[:, 0]
        return layout

    def take(self, padded: torch.Tensor) -> torch.Tensor:
        """Select the layout's tokens from a padded tensor: (n, L, ...) -> (N, ...)."""
        flat = padded.flatten(0, 1)
        return flat if self._places is None else flat.index_select(0, self._places)

    def places_of(self, mask: torch.Tensor) -> torch.Tensor:
        """The index of each slot of a padded tensor among the layout's tokens, int64 (n, L).

        Args:
            mask: bool (n, L), from which the layout was made; slots that it leaves out are 0.
        """
        if self._places is None:
            return torch.arange(mask.numel(), device=mask.device).view(mask.shape)
        places = torch.zeros(mask.numel(), dtype=torch.long, device=mask.device)
        places[self._places] = torch.arange(len(self._places), device=mask.device)
        return places.view(mask.shape)

    def drop_padding(self, x: torch.Tensor) -> torch.Tensor:
        """Select the real tokens of (N, ...)."""
        return x if self.real is None else x[self.real]

    @cached_property
    def mask(self) -> torch.Tensor:
        """Bool (n, L), True at real tokens."""
        rows = self.candidates
        if self._padding is not None:
            return self._padding
        if rows.even:
            return torch.ones(rows.count, rows.width, dtype=torch.bool, device=self.device)
        return rows.mask

    @property
    def attention_mask(self) -> torch.Tensor | None:
        """Bool (n, L), True at tokens to attend to; None if there is no padding."""
        no_padding = self._padding is None and self.candidates.even
        return None if no_padding else self.mask

    @cached_property
    def real(self) -> torch.Tensor | None:
        """Bool (N,), True at real tokens; None if all are real."""
        return None if self._padding is None else self._padding.flatten()

    @cached_property
    def lengths(self) -> torch.Tensor:
        """The number of real tokens of each candidate, int64 (n,)."""
        if self._padding is not None:
            return self._padding.sum(1)
        return self.candidates.lengths.to(self.device)

    @cached_property
    def rows(self) -> torch.Tensor:
        """The candidate of each token, int64 (N,)."""
        lengths = self.candidates.lengths
        return torch.arange(len(lengths)).repeat_interleave(lengths).to(self.device)

    @cached_property
    def owner_index(self) -> torch.Tensor:
        """The sentence of each candidate, int64 (n,)."""
        return torch.tensor(self.owners, device=self.device)

    @cached_property
    def positions(self) -> torch.Tensor:
        """The position of each token in its candidate, from 0, int64 (N,)."""
        places = torch.arange(self.candidates.width, device=self.device)
        return self.candidates.pack(places.expand(self.candidates.count, -1)[..., None])[:, 0]

    def spread(self, x: torch.Tensor) -> torch.Tensor:
        """Repeat each candidate's vector for its tokens: (n, C) -> (N, C).

        A single vector (1, C) is returned as it is, since it broadcasts.
        """
        if len(x) == 1:
            return x
        rows = self.candidates
        if rows.even:
            return x[:, None].expand(-1, rows.width, -1).reshape(rows.total, -1)
        return x.index_select(0, self.rows)
