"""Where the tokens of a batch lie: one after another for what acts on each, padded for attention.

All that a Transformer does but attention acts on each token alone and is computed on a matrix
(N, C) of tokens. Attention wants the tokens that see each other side by side, in rows of one width.
"""

from functools import cached_property

import torch


class Rows:
    """Runs of consecutive tokens, seen as the rows of a padded tensor.

    Where all runs have one length the two are views of each other, else tokens are gathered.

    Args:
        lengths: list of n ints, at least 1: how many tokens each run has.
        device: of the tokens.
    """

    def __init__(self, lengths, device):
        self.count, self.width, self.total = len(lengths), max(lengths), sum(lengths)
        self.lengths = torch.tensor(lengths)
        self.even = self.total == self.count * self.width
        if not self.even:
            slots = torch.arange(self.width).expand(self.count, -1)
            mask = slots < self.lengths[:, None]
            starts = (self.lengths.cumsum(0) - self.lengths)[:, None]
            self.mask = mask.to(device)
            # beyond a run's end its last token stands in: any number will do, but it must be one
            self._tokens = (starts + slots.minimum(self.lengths[:, None] - 1)).flatten().to(device)
            self._slots = mask.flatten().nonzero()[:, 0].to(device)

    def pad(self, x):
        """Tokens (N, C) to rows (n, width, C)."""
        if not self.even:
            x = x.index_select(0, self._tokens)
        return x.view(self.count, self.width, -1)

    def pack(self, x):
        """Rows (n, width, C) to tokens (N, C)."""
        x = x.flatten(0, 1)
        return x if self.even else x.index_select(0, self._slots)


class Layout:
    """The candidates of some sentences: a sentence's one after another, a candidate's tokens too.

    Args:
        lengths: list of n ints, the tokens of each candidate.
        sentences: list of n ints, the sentence of each candidate: 0, 0, ..., 1, ..., none left out.
        device: of the tokens.
        mask: (n, L) bool for candidates that are all padded to the length L, True where a token is
            real. Without it there is no padding.

    Attributes:
        candidates: Rows, what self-attention sees.
        sentences: Rows, the tokens of all candidates of a sentence, which see the same source.
        mask: (n, L), True at real tokens.
        owners: the sentence of each candidate.
    """

    def __init__(self, lengths, sentences, device, mask=None):
        self.candidates = Rows(lengths, device)
        of_sentence = [0] * (sentences[-1] + 1)
        for length, sentence in zip(lengths, sentences):
            of_sentence[sentence] += length
        # where each sentence has one candidate, the two are the same
        self.sentences = (
            self.candidates if len(of_sentence) == len(lengths) else Rows(of_sentence, device)
        )
        self._padding, self.device, self.owners = mask, device, sentences
        self._places = None  # of the tokens in a padded tensor, where they were packed from one

    @classmethod
    def dense(cls, mask):
        """One candidate a sentence, padding kept: mask (B, L)."""
        count, width = mask.shape
        return cls([width] * count, list(range(count)), mask.device, mask)

    @classmethod
    def packed(cls, mask):
        """One candidate a sentence, its real tokens alone: mask (B, L)."""
        layout = cls(mask.sum(1).tolist(), list(range(len(mask))), mask.device)
        layout._places = mask.flatten().nonzero()[:, 0]
        return layout

    def take(self, padded):
        """The layout's tokens (N, ...) of a tensor (B, L, ...) that is padded like its mask."""
        flat = padded.flatten(0, 1)
        return flat if self._places is None else flat.index_select(0, self._places)

    def drop_padding(self, x):
        """Those of the tokens (N, ...) that are no padding."""
        return x if self.real is None else x[self.real]

    @cached_property
    def mask(self):
        """(n, L), True at real tokens."""
        rows = self.candidates
        if self._padding is not None:
            return self._padding
        if rows.even:
            return torch.ones(rows.count, rows.width, dtype=torch.bool, device=self.device)
        return rows.mask

    @property
    def attention_mask(self):
        """(n, L), True where self-attention may look, or None where it may everywhere."""
        whole = self._padding is None and self.candidates.even
        return None if whole else self.mask

    @cached_property
    def real(self):
        """Bool (N,), True at tokens that are no padding; None where all are real."""
        return None if self._padding is None else self._padding.flatten()

    @cached_property
    def lengths(self):
        """How many real tokens each candidate has, int64 (n,)."""
        if self._padding is not None:
            return self._padding.sum(1)
        return self.candidates.lengths.to(self.device)

    @cached_property
    def rows(self):
        """The candidate of each token, int64 (N,)."""
        lengths = self.candidates.lengths
        return torch.arange(len(lengths)).repeat_interleave(lengths).to(self.device)

    @cached_property
    def positions(self):
        """The place of each token in its candidate, int64 (N,)."""
        places = torch.arange(self.candidates.width, device=self.device)
        return self.candidates.pack(places.expand(self.candidates.count, -1)[..., None])[:, 0]

    def spread(self, x):
        """What belongs to candidates (n, C), at each of their tokens (N, C); (1, C) stays."""
        if len(x) == 1:
            return x
        rows = self.candidates
        if rows.even:
            return x[:, None].expand(-1, rows.width, -1).reshape(rows.total, -1)
        return x.index_select(0, self.rows)
