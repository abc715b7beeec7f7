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
# --decoding-sampler and --decoding-remasking: the first that a model accepts is its default
SAMPLERS = (
    ("ancestral", False),
    ("confidence", False),
    ("confidence", True),
    ("tweedie", False),
    ("tau_leaping", False),
)
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
    decoding_sampler: Optional[str] = None
    decoding_remasking: bool = False

    @classmethod
    def of(cls, options):
        """Those of DecodingOptions."""
        return cls(*(getattr(options, name) for name in cls._fields))

    @property
    def sampler(self):
        """The name of the sampler and whether it remasks."""
        return self.decoding_sampler, self.decoding_remasking

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
        if self.decoding_sampler:
            words.append(self.decoding_sampler + " with remasking" * self.decoding_remasking)
        return ", ".join([*words, self.decoding_precision or "the model's precision"])

    def passes(self):
        """How often a candidate goes through the denoiser, of one sentence, if none halts."""
        if not self.race_after:
            return self.taken * self.candidates
        return self.race_after * self.candidates + (self.taken - self.race_after) * self.race_keep


def space(options, precisions, check_model):
    """The settings that the search knows; none exceeds the reference in any option.

    Args:
        options: DecodingOptions of the reference; what is not searched over keeps their value.
        precisions: names as of --decoding-precision.
        check_model: raises a UserError for DecodingOptions that the model refuses.
    Returns:
        a list of Settings, the reference first.
    Raises:
        UserError: the model refuses the reference.
    """
    check_model(options)
    accepts = _Accepted(options, check_model)
    samplers = [s for s in SAMPLERS if accepts.sampler(*s)]
    if options.decoding_sampler is None and samplers:
        options = replace(options, decoding_sampler=samplers[0][0])
    reference = Settings.of(options)
    samplers = samplers or [reference.sampler]
    steps = _levels(STEPS, reference.decoding_steps)
    lengths = _levels(BEAM, reference.length_beam_size)
    noises = _levels(BEAM, reference.noise_beam_size)
    found = {reference: None}
    for k, b1, b2 in product(steps, lengths, noises):
        stops = {0, k // 4, k // 2, min(reference.decoding_early_stopping, k - 1)}
        for e, sampler in product(sorted(stops), samplers):
            races = [(0, 1)] + [
                (after, keep)
                for after, keep in product(RACING, BEAM)
                if after < k - e and 2 * keep <= b1 * b2
            ]
            halting = [n for n in HALTING if n < k - e]
            for halt, race, precision in product(halting, races, precisions):
                found[Settings(k, e, b1, b2, halt, *race, precision, *sampler)] = None
    if len(found) > MOST:
        found = [reference, *Random(0).sample([*found][1:], MOST - 1)]
    return [settings for settings in found if accepts(settings)]


def _levels(levels, most):
    return [level for level in levels if level < most] + [most]


class _Accepted:
    """Which settings can be, the model being asked as seldom as possible.

    To a model it matters only whether there are early stopping, halting and racing, not after how
    many steps, and what it has been asked once is known.
    """

    def __init__(self, options, check_model):
        self.options, self.check_model, self.known = options, check_model, {}

    def sampler(self, name, remasking):
        """Whether the model has such a sampler, for one candidate."""
        plain = {"length_beam_size": 1, "noise_beam_size": 1, "race_after": 0, "race_keep": 1}
        own = {"decoding_sampler": name, "decoding_remasking": remasking}
        return self._ask(replace(self.options, **plain, **own))

    def __call__(self, settings):
        try:
            check_options(replace(self.options, **settings._asdict()))
        except UserError:
            return False
        key = settings._replace(
            decoding_early_stopping=min(settings.decoding_early_stopping, 1),
            halt_after=min(settings.halt_after, 1),
            race_after=min(settings.race_after, 1),
            race_keep=1,
            decoding_precision=None,
        )
        if key not in self.known:
            self.known[key] = self._ask(replace(self.options, **key._asdict()))
        return self.known[key]

    def _ask(self, options):
        try:
            self.check_model(options)
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
        *(2.0 * (settings.sampler == sampler) for sampler in SAMPLERS),
    ]


def expected_work(settings):
    """Time as it may be before anything is known, in passes of a candidate through the denoiser."""
    work = settings.passes()
    if settings.halt_after:
        work *= 0.6 + 0.1 * settings.halt_after
    if settings.lowered:
        work *= 0.6
    return work + 2  # the encoder, and the choice among candidates
