"""The source half of joint sequences: what decoding keeps of it, and how it joins the targets."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch.nn import functional as F

from difformer_plugin.networks.layers import KeysValues
from difformer_plugin.networks.layout import Layout


@dataclass(frozen=True)
class JointMemory:
    """Sources as the joint Transformer read them on their own; it stands for `layers.Memory`.

    Attributes:
        states: (B, S, C), its last states, for the length predictor.
        mask: bool (B, S), True at real tokens, which come first.
        tokens: int64 (B, S), from BOS to EOS.
        absent: bool (B,), sentences whose source is to be read as if it were absent.
        layers: the states (B, S, C) that each layer reads; empty unless sources are blind.
    """

    states: torch.Tensor
    mask: torch.Tensor
    tokens: torch.Tensor
    absent: torch.Tensor
    layers: tuple[torch.Tensor, ...] = ()

    def select(self, rows: torch.Tensor) -> "JointMemory":
        """Select sentences by their indices, which may repeat, or by a boolean mask (B,)."""
        return self._map(lambda x: x[rows])

    def to(self, dtype: torch.dtype) -> "JointMemory":
        """Convert the states to another precision."""
        layers = tuple(x.to(dtype) for x in self.layers)
        return replace(self, states=self.states.to(dtype), layers=layers)

    def widened(self, width: int) -> "JointMemory":
        """Pad on the right to a width of at least S."""
        padding = width - self.mask.shape[1]

        def pad(x: torch.Tensor) -> torch.Tensor:
            ends = {1: (), 2: (0, padding), 3: (0, 0, 0, padding)}[x.dim()]
            return F.pad(x, ends)

        return self._map(pad)

    def lengths(self) -> torch.Tensor:
        """Source lengths including BOS and EOS, int64 (B,)."""
        return self.mask.sum(1)

    def _map(self, function: Callable[[torch.Tensor], torch.Tensor]) -> "JointMemory":
        return JointMemory(
            function(self.states),
            function(self.mask),
            function(self.tokens),
            function(self.absent),
            tuple(function(x) for x in self.layers),
        )


@dataclass
class JointConditions:
    """What predictions read of the sources; it stands for `layers.Conditions`.

    Attributes:
        mask: bool (B, S), True at real tokens, which come first.
        latents: (B, S, D), what is read in place of the source, in the denoiser's precision.
        absent: bool (B,), sentences whose source is absent.
        layers: keys and values of blind sources, (B, heads, S, C / heads) each, for every layer.
        precision: of the denoiser that reads them; see `networks.precision`.
    """

    mask: torch.Tensor
    latents: torch.Tensor
    absent: torch.Tensor
    layers: list[KeysValues]
    precision: torch.dtype
    _joined: tuple[Layout, Any] | None = field(default=None, repr=False)

    def in_precision(self, precision: torch.dtype) -> "JointConditions":
        """The same for a denoiser in another precision."""
        return replace(self, precision=precision, _joined=None)

    def tensors(self) -> list[torch.Tensor]:
        """All that depends on the sentences."""
        return [self.mask, self.latents, self.absent, *(x for pair in self.layers for x in pair)]

    def select(self, rows: torch.Tensor) -> "JointConditions":
        """Select sentences by their indices, which may repeat, or by a boolean mask (B,)."""
        return self._map(lambda x: x[rows])

    def clone(self) -> "JointConditions":
        """A copy with tensors of its own."""
        return self._map(torch.clone)

    def _map(self, function: Callable[[torch.Tensor], torch.Tensor]) -> "JointConditions":
        return JointConditions(
            function(self.mask),
            function(self.latents),
            function(self.absent),
            [(function(k), function(v)) for k, v in self.layers],
            self.precision,
        )

    def join(self, layout: Layout) -> "Joined":
        """The joint sequences of the targets of a layout; those of the last layout are kept."""
        if layout.real is not None:  # the mask may be overwritten when a graph is replayed
            return Joined(self, layout)
        if self._joined is None or self._joined[0] is not layout:
            self._joined = layout, Joined(self, layout)
        return self._joined[1]


class Joined:
    """The joint sequences s t of n candidates: where their tokens lie, and the sources' part.

    Args:
        conditions: of the B sources.
        layout: of the targets, N tokens in all.

    Attributes:
        layout: of the joint sequences, M tokens in all.
        owners: int64 (n,), the source of each candidate.
        mask: bool (n, S + W), True at real tokens of sources and of targets, W being the width of
            the layout of the targets.
    """

    def __init__(self, conditions: JointConditions, layout: Layout):
        self.targets = layout.candidates
        self.owners = layout.owner_index
        self.source_width = conditions.mask.shape[1]
        self.sources = conditions.latents[self.owners]
        self.mask = torch.cat([conditions.mask[self.owners], layout.mask], dim=1)
        build = Layout.packed if layout.real is None else Layout.dense
        self.layout = build(self.mask)
        slots = self.layout.places_of(self.mask)
        self._places = self.targets.pack(slots[:, self.source_width :, None])[:, 0]

    def with_latents(self, z: torch.Tensor) -> torch.Tensor:
        """Latents of the targets (N, D) -> latents of the joint sequences (M, D)."""
        return self.layout.take(torch.cat([self.sources, self.targets.pad(z)], dim=1))

    def with_sources(self, x: torch.Tensor) -> torch.Tensor:
        """Values of the targets' tokens (N, C) -> those of joint sequences (M, C), 0 in sources."""
        rows = self.targets.pad(x)
        zeros = rows.new_zeros(len(rows), self.source_width, rows.shape[2])
        return self.layout.take(torch.cat([zeros, rows], dim=1))

    def targets_of(self, x: torch.Tensor) -> torch.Tensor:
        """Tokens of the joint sequences (M, C) -> those of the targets, (N, C)."""
        return x.index_select(0, self._places)
