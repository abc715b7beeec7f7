"""Noise that depends only on the seed, the sentence, the candidate and the step.

A sentence's noise must not depend on the batch that it is in. So each (seed, sentence, candidate,
step) has a SplitMix64 stream of its own (Steele et al., 2014). Element n of a stream is a function
of the stream's start and n, so that any part of it can be computed in any order. Its bits choose
two quantiles of the normal distribution, whose sum is scaled to unit variance. A look-up, an
addition and a multiplication round alike on every device, so that the noise is the same to the last
bit on CPU and GPU. Discrete diffusion takes uniform numbers from the same streams.
"""

import copy
import hashlib
import statistics
from collections.abc import Callable
from functools import cache

import torch

_INCREMENT = 0x9E3779B97F4A7C15
_MIX_1 = 0xBF58476D1CE4E5B9
_MIX_2 = 0x94D049BB133111EB
_TABLE_BITS = 16


def _signed(value):
    """The int64 with the 64-bit pattern of `value`."""
    value &= 2**64 - 1
    return value - 2**64 if value >= 2**63 else value


def _shift_right(x, bits):
    """Logical right shift, which fills with zeros; torch's shift of int64 copies the sign."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _mix(z):
    """SplitMix64's output function, on int64 tensors taken as 64-bit patterns."""
    z = (z ^ _shift_right(z, 30)) * _signed(_MIX_1)
    z = (z ^ _shift_right(z, 27)) * _signed(_MIX_2)
    return z ^ _shift_right(z, 31)


def splitmix64(start: torch.Tensor, count: int) -> torch.Tensor:
    """The first `count` outputs of the SplitMix64 streams that begin at `start`.

    Args:
        start: int64 tensor (...).
    Returns:
        int64 tensor (..., count), to be read as 64-bit patterns.
    """
    n = torch.arange(1, count + 1, device=start.device)
    return _mix(start[..., None] + n * _signed(_INCREMENT))


def sentence_keys(src_tokens: torch.Tensor, pad: int, seed: int) -> torch.Tensor:
    """A 64-bit key for each sentence, from the seed and the tokens without padding.

    Args:
        src_tokens: int64 (B, S).
        pad: index of the padding symbol.
        seed: any integer.
    Returns:
        int64 (B,) on the device of `src_tokens`.
    """
    keys = []
    for row in src_tokens.tolist():
        text = " ".join(str(token) for token in [seed, *(t for t in row if t != pad)])
        digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
        keys.append(_signed(int.from_bytes(digest, "little")))
    return torch.tensor(keys, dtype=torch.int64, device=src_tokens.device)


def candidate_keys(keys: torch.Tensor, candidates: torch.Tensor, part: int) -> torch.Tensor:
    """Keys with which candidates that are drawn alone, part by part, keep noise of their own.

    With such a key, candidate 0 of `SentenceNoise` has in part 0 the noise of this candidate of its
    sentence, and in each further part another one.

    Args:
        keys: int64 (N,), of the candidates' sentences.
        candidates: int64 (N,), the candidate's index within its sentence.
        part: number of the part, from 0.
    Returns:
        int64 (N,).
    """
    part_offset = int(_mix(torch.tensor(_signed(part * _MIX_1))))  # 0 in part 0
    return keys + _candidate_offset(candidates) - _candidate_offset(candidates * 0) + part_offset


def _candidate_offset(candidates):
    return _mix((candidates + 1) * _signed(_INCREMENT))


@cache
def _quantiles(device):
    """Midpoint quantiles of N(0, 1), scaled so that a sum of two of them has unit variance."""
    count = 2**_TABLE_BITS
    inverse = statistics.NormalDist().inv_cdf
    half = [inverse((i + 0.5) / count) for i in range(count // 2)]
    table = torch.tensor(half + [-q for q in reversed(half)], dtype=torch.float64)
    return (table / (2 * table.square().mean()).sqrt()).float().to(device)


def normal(streams: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
    """Standard normal noise from streams.

    Args:
        streams: int64 (B,), the start of each row's stream.
        shape: (L, D). A row holds the first L D values of its stream, so that a shorter sentence
            sees a prefix of the same noise.
    Returns:
        float32 (B, L, D).
    """
    length, dim = shape
    bits = splitmix64(streams, length * dim)
    table, last = _quantiles(streams.device), 2**_TABLE_BITS - 1
    noise = table[bits & last] + table[_shift_right(bits, 32) & last]
    return noise.view(-1, length, dim)


def uniform(streams: torch.Tensor, count: int) -> torch.Tensor:
    """Uniform numbers in [0, 1), float32 (B, count), from streams (B,)."""
    return _shift_right(splitmix64(streams, count), 40).float() / 2**24


def uniform_noise(streams: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
    """Uniform numbers in [0, 1) from streams; otherwise like `normal`."""
    length, dim = shape
    return uniform(streams, length * dim).view(-1, length, dim)


class SentenceNoise:
    """The noise of a batch of candidates: a function of the step.

    Args:
        keys: int64 (N,), from `sentence_keys`, one for each candidate's sentence.
        candidates: int64 (N,), the candidate's index within its sentence.
        draw: makes numbers from streams: `normal` or `uniform_noise`.
    """

    def __init__(
        self,
        keys: torch.Tensor,
        candidates: torch.Tensor,
        draw: Callable[[torch.Tensor, tuple[int, int]], torch.Tensor] = normal,
    ):
        self.draw = draw
        self.streams = _mix(keys + _candidate_offset(candidates))

    def __call__(self, step: int, shape: tuple[int, int]) -> torch.Tensor:
        """The noise of a step, float32 (N, L, D) for `shape` = (L, D).

        Steps are 0 .. K - 1; K stands for the prior.
        """
        return self.draw(self._starts(step), shape)

    def at(self, step: int, rows: torch.Tensor, positions: torch.Tensor, dim: int) -> torch.Tensor:
        """The same noise, only at some tokens.

        Args:
            rows: int64 (M,), the candidate of each token.
            positions: int64 (M,), its position in the candidate.
            dim: D.
        Returns:
            float32 (M, D): element [m] is `self(step, (L, dim))[rows[m], positions[m]]`.
        """
        # a stream is linear in its counter, so a token's part is a stream with a later start
        starts = self._starts(step)[rows] + positions * dim * _signed(_INCREMENT)
        return self.draw(starts, (1, dim))[:, 0]

    def select(self, candidates: torch.Tensor) -> "SentenceNoise":
        """The noise of some of the candidates, given by indices or a boolean mask."""
        chosen = copy.copy(self)
        chosen.streams = self.streams[candidates]
        return chosen

    def _starts(self, step):
        # a number, since copying a tensor to a GPU would wait for it
        offset = int(_mix(torch.tensor(_signed((step + 1) * _MIX_2))))
        return _mix(self.streams ^ offset)
