"""The settings among which `difformer tune` searches, and where they lie for its model."""

from dataclasses import replace
from itertools import product
from random import Random
from typing import NamedTuple, Optional

import numpy as np

from difformer_plugin.decoding.options import check_options
from difformer_plugin.errors import UserError

STEPS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 40, 50, 75, 100, 150, 200)
BEAM = (1, 2, 3, 5, 7, 10, 15, 20, 30)
HALTING = (0, 1, 2, 3)
RACING = (1, 2, 3, 5, 8, 12)
MOST = 40_000  # settings, drawn from more: neighbours of each are left, and a model that is quick


class Settings(NamedTuple):
    """The options that are searched over, by their names."""

    decoding_steps: int
    decoding_early_stopping: int
    length_beam_size: int
    noise_beam_size: int
    halt_after: int
    race_after: int
    race_keep: int
    decoding_precision: Optional[str]

    @classmethod
    def of(cls, options):
        """Those of DecodingOptions."""
        return cls(*(getattr(options, name) for name in cls._fields))

    @property
    def taken(self):
        """The steps that are taken, K - E."""
        return self.decoding_steps - self.decoding_early_stopping

    @property
    def candidates(self):
        """How many a sentence has."""
        return self.length_beam_size * self.noise_beam_size

    @property
    def lowered(self):
        """Whether the denoiser works in less than full precision."""
        return self.decoding_precision not in (None, "fp32")

    def __str__(self):
        words = [
            f"K {self.decoding_steps}",
            f"E {self.decoding_early_stopping}",
            f"{self.length_beam_size} x {self.noise_beam_size}",
        ]
        if self.halt_after:
            words.append(f"halt {self.halt_after}")
        if self.race_after:
            words.append(f"race {self.race_after} to {self.race_keep}")
        return ", ".join([*words, self.decoding_precision or "the model's precision"])

    def passes(self):
        """How often a candidate goes through the denoiser, of one sentence, if none halts."""
        if not self.race_after:
            return self.taken * self.candidates
        return self.race_after * self.candidates + (self.taken - self.race_after) * self.race_keep


def space(options, precisions):
    """The settings that the search knows; none exceeds the reference in any option.

    Args:
        options: DecodingOptions of the reference; what is not searched over keeps their value.
        precisions: names as of --decoding-precision.
    Returns:
        a list of Settings, the reference first.
    """
    reference = Settings.of(options)
    steps = _levels(STEPS, reference.decoding_steps)
    lengths = _levels(BEAM, reference.length_beam_size)
    noises = _levels(BEAM, reference.noise_beam_size)
    found = {reference: None}
    for k, b1, b2 in product(steps, lengths, noises):
        stops = {0, k // 4, k // 2, min(reference.decoding_early_stopping, k - 1)}
        for e in sorted(stops):
            races = [(0, 1)] + [
                (after, keep)
                for after, keep in product(RACING, BEAM)
                if after < k - e and 2 * keep <= b1 * b2
            ]
            halting = [n for n in HALTING if n < k - e]
            for halt, race, precision in product(halting, races, precisions):
                found[Settings(k, e, b1, b2, halt, *race, precision)] = None
    if len(found) > MOST:
        found = [reference, *Random(0).sample([*found][1:], MOST - 1)]
    return [settings for settings in found if _possible(options, settings)]


def _levels(levels, most):
    return [level for level in levels if level < most] + [most]


def _possible(options, settings):
    try:
        check_options(replace(options, **settings._asdict()))
    except UserError:
        return False
    return True


def features(settings):
    """Where settings lie for the model, about 1 apart where results differ noticeably.

    Returns:
        a list of numbers.
    """
    kept, share = 0.0, 0.0
    if settings.race_after:
        kept = np.log2(settings.candidates / settings.race_keep)
        share = kept * settings.race_after / settings.taken
    return [
        1.5 * np.log2(settings.decoding_steps),
        2 * settings.decoding_early_stopping / settings.decoding_steps,
        np.log2(settings.length_beam_size),
        np.log2(settings.noise_beam_size),
        2 / settings.halt_after if settings.halt_after else 0.0,
        kept,
        share,
        2.0 * settings.lowered,
        2.0 * (settings.decoding_precision == "fp16"),
    ]


def expected_work(settings):
    """Time as it may be before anything is known, in passes of a candidate through the denoiser."""
    work = settings.passes()
    if settings.halt_after:
        work *= 0.6 + 0.1 * settings.halt_after
    if settings.lowered:
        work *= 0.6
    return work + 2  # the encoder, and the choice among candidates
