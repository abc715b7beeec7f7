"""Samplers: ways to draw from the reverse process. The protocol, and the registry of all of them.

A sampler steps from pure noise at time 1 to the data at time 0 in K steps. Its fields that are made
by `setting` are options of decoding: a field `eta` becomes `--decoding-eta`. A new sampler is a new
file in a folder `samplers` of `gaussian` or `categorical`; nothing else has to know its name.
"""

from collections.abc import Callable, Sequence
from dataclasses import Field, field, fields
from typing import Any, ClassVar, Protocol

import numpy as np
import torch

Noise = Callable[[], torch.Tensor]  # draws the noise of a step, (N, noise_dim), when it is called


class Layout(Protocol):
    """Where the N tokens of the candidates lie; `networks.layout.Layout` is one.

    Attributes:
        lengths: int64 (n,), the tokens of each candidate.
        rows: int64 (N,), the candidate of each token.
        positions: int64 (N,), the place of each token in its candidate.
        real: bool (N,), False at padding; None where nothing is padding.
    """

    lengths: torch.Tensor
    rows: torch.Tensor
    positions: torch.Tensor
    real: torch.Tensor | None


class Sampler(Protocol):
    """One way to draw a batch of targets, whose N tokens lie as a Layout says.

    The state z is what the family diffuses: latents (N, D), or a `Draft` of tokens.

    Attributes:
        name: value of `--decoding-sampler`.
        times: float64 array (K,), increasing: the time in [0, 1] of the model's prediction in each
            step. Step K - 1 comes first.
        grows: whether a step may change the number of tokens.
        draw_noise: makes noise from random streams, as `noise.normal` does.
    """

    name: ClassVar[str]
    times: np.ndarray
    grows: ClassVar[bool]
    draw_noise: Callable[[torch.Tensor, tuple[int, int]], torch.Tensor]

    def prior(self, noise: Noise, layout: Layout) -> Any:
        """The state at time 1, before anything was predicted."""

    def step(
        self,
        z: Any,
        prediction: torch.Tensor,
        k: int,
        noise: Noise,
        layout: Layout,
        previous: torch.Tensor | None = None,
    ) -> Any:
        """The state after step k.

        Args:
            prediction: (N, P), the model's at this step, of which D numbers or 2 D (Gaussian
                diffusion: `gaussian.rounding`); previous: at the step before, if any.
        """

    def finish(self, z: Any, prediction: torch.Tensor, k: int, noise: Noise, layout: Layout) -> Any:
        """The state at time 0, straight from step k."""

    def impose(
        self, z: Any, clean: Any, given: torch.Tensor, k: int, noise: Noise, layout: Layout
    ) -> Any:
        """The state that step k begins from, with given tokens in it.

        Args:
            clean: the state of the given tokens at time 0; of no meaning elsewhere.
            given: bool (N,), which tokens are given.
        """

    @classmethod
    def check(cls, **settings: Any) -> None:
        """Raise a ParameterError for settings that it cannot have."""

    @classmethod
    def ignores_noise(cls, **settings: Any) -> bool:
        """Whether all noises give the same output."""


SAMPLERS: list[Any] = []


def register_sampler(kind: type) -> type:
    """Class decorator: add a sampler to the registry."""
    SAMPLERS.append(kind)
    return kind


def setting(default: Any, text: str, tries: Sequence[float] = ()) -> Any:
    """A field of a sampler that is an option of decoding.

    Args:
        default: its default value.
        text: its help text.
        tries: values that `difformer tune` tries besides the user's own; a switch is always tried
            both ways.
    """
    return field(default=default, kw_only=True, metadata={"help": text, "tries": tries})


def settings_of(kind: type) -> list[Field]:
    """The fields of a sampler class that are options of decoding."""
    return [f for f in fields(kind) if "help" in f.metadata]
