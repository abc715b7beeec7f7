"""What all samplers of categorical diffusion with a fixed length share.

A step draws each token from a distribution of its own, given the network's prediction for it. The
BOS and EOS that frame a target are there from the start and never change.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch.nn import functional as F

from difformer_plugin.diffusion.categorical.draft import Draft
from difformer_plugin.diffusion.categorical.draws import draw, sharpen
from difformer_plugin.diffusion.categorical.process import ForwardProcess
from difformer_plugin.diffusion.noise import uniform_noise
from difformer_plugin.diffusion.parameters import ParameterError
from difformer_plugin.diffusion.sampler import Layout, Noise, setting

CHUNK_LOGITS = {"cpu": 2**22, "cuda": 2**27}  # logits held at a time
NOISE_DIM = 3  # uniform numbers that a token needs in a step
DISTRIBUTION, RATIOS = "distribution", "ratios"  # what a network's logits stand for

Logits = Callable[[torch.Tensor], torch.Tensor]  # predictions (m, D) -> logits (m, n)


class Vocabulary(NamedTuple):
    """Which dictionary indices are types of the process: those from `first_type` up to `mask`.

    Attributes:
        bos, eos: the indices that frame a target.
        first_type: the first index that can be corrupted.
        mask: the index of the mask, which follows the last type's.
    """

    bos: int
    eos: int
    first_type: int
    mask: int

    @property
    def types(self) -> int:
        """n, the number of types."""
        return self.mask - self.first_type


def temperature_setting() -> Any:
    """The setting of samplers that draw tokens; see `draw_x_0`."""
    text = "temperature at which a discrete model draws tokens; 0: the likeliest"
    return setting(0.0, text, (0.0, 0.5))


def check_temperature(temperature: float) -> None:
    """Raise a ParameterError unless it is finite and at least 0."""
    if not 0 <= temperature < float("inf"):
        raise ParameterError("temperature", "must be at least 0", f"{temperature:g}")


def iter_logits(
    z: Draft,
    prediction: torch.Tensor,
    vocabulary: Vocabulary,
    logits: Logits,
    masks_only: bool,
    moving: torch.Tensor | None = None,
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """The logits of a draft's tokens, a chunk of tokens at a time.

    Args:
        prediction: (N, D).
        masks_only: leave out tokens that are no masks.
        moving: bool (N,), leave out all others.
    Yields:
        indices of tokens (m,) and their float32 logits (m, n).
    """
    least = vocabulary.mask if masks_only else vocabulary.first_type
    wanted = z.tokens >= least
    here = (wanted if moving is None else wanted & moving).nonzero()[:, 0]
    size = max(1, CHUNK_LOGITS.get(here.device.type, 2**27) // vocabulary.types)
    for chunk in here.split(size) if len(here) else ():
        yield chunk, logits(prediction[chunk]).float()


def fill_argmax(
    z: Draft, prediction: torch.Tensor, vocabulary: Vocabulary, logits: Logits, masks_only: bool
) -> Draft:
    """The draft with each token (or each mask) replaced by its likeliest type.

    Args: see `iter_logits`.
    """
    tokens, log_probs = z.tokens.clone(), z.log_probs.clone()
    for here, own in iter_logits(z, prediction, vocabulary, logits, masks_only):
        best = F.log_softmax(own, dim=-1).max(-1)
        tokens[here], log_probs[here] = best.indices + vocabulary.first_type, best.values
    return Draft(tokens, log_probs)


def draw_x_0(log_p: torch.Tensor, temperature: float, u: torch.Tensor) -> torch.Tensor:
    """A type from each distribution, at a temperature; 0 takes the likeliest.

    Args:
        log_p: (m, n); u: uniform numbers (m,).
    Returns:
        int64 (m,).
    """
    if temperature == 0:
        return log_p.argmax(-1)
    return draw(sharpen(log_p, temperature), u)


@dataclass
class TokenSampler:
    """Steps of p(x_s | x_t); a subclass says how a token moves from t to s.

    Attributes:
        process: the forward process.
        grid: float64 array (K + 1,), the times of the steps' ends, from 0 to 1.
        vocabulary: which indices are types.
        logits: function from predictions (m, D) to logits (m, n).
        temperature: a setting.
    """

    process: ForwardProcess
    grid: np.ndarray
    vocabulary: Vocabulary
    logits: Logits
    temperature: float = temperature_setting()

    name: ClassVar[str]
    reads_logits_as: ClassVar[str] = DISTRIBUTION
    needs_mask: ClassVar[bool] = False
    grows: ClassVar[bool] = False
    draw_noise = staticmethod(uniform_noise)

    @property
    def times(self) -> np.ndarray:
        """The time in (0, 1] of each step, float64 array (K,)."""
        return self.grid[1:]

    @classmethod
    def check(cls, temperature: float = 0.0, **settings: Any) -> None:
        """Raise a ParameterError for settings that it cannot have."""
        check_temperature(temperature)

    @classmethod
    def ignores_noise(cls, **settings: Any) -> bool:
        """Whether all noises give the same output."""
        return False

    def prior(self, noise: Noise, layout: Layout) -> Draft:
        """x_1 of all tokens but the frame."""
        u, last = noise()[:, 0], layout.lengths[layout.rows] - 1
        tokens = self.process.prior(u) + self.vocabulary.first_type
        # From the last position on: EOS, and padding if there is any.
        tokens = torch.where(layout.positions >= last, self.vocabulary.eos, tokens)
        tokens = torch.where(layout.positions == 0, self.vocabulary.bos, tokens)
        return Draft(tokens, torch.zeros_like(u))

    def step(
        self,
        z: Draft,
        prediction: torch.Tensor,
        k: int,
        noise: Noise,
        layout: Layout,
        previous: torch.Tensor | None = None,
    ) -> Draft:
        """From time grid[k + 1] to grid[k]."""
        return self.leap(z, prediction, self.grid[k + 1], self.grid[k], noise(), layout)

    def finish(
        self, z: Draft, prediction: torch.Tensor, k: int, noise: Noise, layout: Layout
    ) -> Draft:
        """From time grid[k + 1] to 0."""
        return self.leap(z, prediction, self.grid[k + 1], 0.0, noise(), layout)

    def impose(
        self,
        z: Draft,
        clean: Draft,
        given: torch.Tensor,
        k: int,
        noise: Noise,
        layout: Layout,
    ) -> Draft:
        """The draft with its given tokens, which are never corrupted; see `Sampler.impose`."""
        tokens = torch.where(given, clean.tokens, z.tokens)
        return Draft(tokens, z.log_probs.masked_fill(given, 0.0), given=given)

    def leap(
        self,
        z: Draft,
        prediction: torch.Tensor,
        t: float,
        s: float,
        noise: torch.Tensor,
        layout: Layout,
    ) -> Draft:
        """The state at time s, from that at time t.

        Args:
            prediction: (N, D); noise: (N, NOISE_DIM).
        """
        tokens, log_probs = z.tokens.clone(), z.log_probs.clone()
        each_s, each_t = (
            torch.full(tokens.shape, time, dtype=torch.float64, device=tokens.device)
            for time in (s, t)
        )
        moving = self.moving(each_s, each_t, noise)
        for here, logits in self.iter_logits(z, prediction, moving):
            x_t = z.tokens[here] - self.vocabulary.first_type
            x_s, scores = self.move(x_t, logits, each_s[here], each_t[here], noise[here])
            tokens[here], log_probs[here] = x_s + self.vocabulary.first_type, scores
        return Draft(tokens, log_probs)

    def iter_logits(
        self, z: Draft, prediction: torch.Tensor, moving: torch.Tensor | None = None
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """The logits of all tokens that can change: only masks where the process has a mask.

        Args: see the function `iter_logits`.
        """
        masks_only = self.process.has_mask
        return iter_logits(z, prediction, self.vocabulary, self.logits, masks_only, moving)

    def moving(self, s: torch.Tensor, t: torch.Tensor, u: torch.Tensor) -> torch.Tensor | None:
        """Which tokens `move` can change, known without their logits: bool (N,); None if any can.

        Args: as of `move`, of all N tokens.
        """
        return None

    def move(
        self,
        x_t: torch.Tensor,
        logits: torch.Tensor,
        s: torch.Tensor,
        t: torch.Tensor,
        u: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """States x_s (m,) and their log-probabilities (m,), which are 0 for masks.

        Args:
            x_t: int64 (m,); logits: (m, n); s, t: float64 (m,); u: uniform numbers (m, NOISE_DIM).
        """
        raise NotImplementedError
