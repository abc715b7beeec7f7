"""The settings that `difformer tune` searches, and their features for the surrogates."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from random import Random
from typing import Any, NamedTuple

import numpy as np

from difformer_plugin.decoding.options import DecodingOptions, check_options, setting_option
from difformer_plugin.diffusion.sampler import settings_of
from difformer_plugin.errors import UserError

STEPS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 40, 50, 75, 100, 150, 200)
BEAM_SIZES = (1, 2, 3, 5, 7, 10, 15, 20, 30)
HALT_AFTER = (0, 1, 2, 3)
RACE_AFTER = (1, 2, 3, 5, 8, 12)
NO_RACE = (0, 1)  # race_after, race_keep
MAX_SETTINGS = 40_000  # more are sampled down to this many, which keeps the surrogates fast


class SamplerChoice(NamedTuple):
    """A sampler, and the values of its settings.

    Attributes:
        name: value of --decoding-sampler.
        settings: (option, value) of each setting of any sampler that the model has; those of other
            samplers have their defaults.
    """

    name: str | None = None
    settings: tuple[tuple[str, Any], ...] = ()

    def options(self) -> dict[str, Any]:
        """The options of decoding that it sets."""
        return {"decoding_sampler": self.name, **dict(self.settings)}

    def __str__(self) -> str:
        on = [name.removeprefix("decoding_") for name, value in self.settings if value is True]
        name = self.name or "the model's sampler"
        return f"{name} with {' and '.join(on)}" if on else name


class Settings(NamedTuple):
    """The options that are searched over, and the sampler."""

    decoding_steps: int
    decoding_early_stopping: int
    length_beam_size: int
    noise_beam_size: int
    halt_after: int
    race_after: int
    race_keep: int
    decoding_precision: str | None
    sampler: SamplerChoice = SamplerChoice()

    @classmethod
    def of(cls, options: DecodingOptions, sampler: SamplerChoice) -> "Settings":
        """The settings of some options, with a sampler."""
        own = {name: getattr(options, name) for name in cls._fields if name != "sampler"}
        return cls(**own, sampler=sampler)

    def options(self) -> dict[str, Any]:
        """The options of decoding that they set, name -> value."""
        own = self._asdict()
        del own["sampler"]
        return own | (self.sampler.options() if self.sampler.name else {})

    @property
    def num_steps(self) -> int:
        """The steps that are taken, K - E."""
        return self.decoding_steps - self.decoding_early_stopping

    @property
    def num_candidates(self) -> int:
        """The candidates of a sentence."""
        return self.length_beam_size * self.noise_beam_size

    @property
    def low_precision(self) -> bool:
        """Whether the denoiser works in less than full precision."""
        return self.decoding_precision not in (None, "fp32")

    def __str__(self) -> str:
        parts = [
            f"K {self.decoding_steps}",
            f"E {self.decoding_early_stopping}",
            f"{self.length_beam_size} x {self.noise_beam_size}",
        ]
        if self.halt_after:
            parts.append(f"halt {self.halt_after}")
        if self.race_after:
            parts.append(f"race {self.race_after} to {self.race_keep}")
        if self.sampler.name:
            parts.append(str(self.sampler))
        return ", ".join([*parts, self.decoding_precision or "the model's precision"])

    def denoiser_passes(self) -> int:
        """Passes of a candidate through the denoiser for one sentence, if none halts early."""
        if not self.race_after:
            return self.num_steps * self.num_candidates
        after = (self.num_steps - self.race_after) * self.race_keep
        return self.race_after * self.num_candidates + after


def search_space(
    options: DecodingOptions,
    precisions: Sequence[str],
    samplers: Mapping[str, type],
    check: Callable[[DecodingOptions], Any],
) -> list[Settings]:
    """The settings to search; none exceeds the reference in any option.

    Args:
        options: of the reference; what is not searched over keeps its value.
        precisions: values of --decoding-precision.
        samplers: the model's, by name, its default first.
        check: raises a UserError for options that the model refuses.
    Returns:
        the settings, the reference first.
    Raises:
        UserError: the model refuses the reference.
    """
    check(options)
    accepts = _Accepted(options, check)
    own = _sampler_choice(samplers, options.decoding_sampler or next(iter(samplers)), options)
    others = [each for each in _sampler_choices(samplers, options) if accepts.sampler(each)]
    choices = list(dict.fromkeys([own, *others]))
    reference = Settings.of(options, own)
    steps = _levels(STEPS, reference.decoding_steps)
    lengths = _levels(BEAM_SIZES, reference.length_beam_size)
    noises = _levels(BEAM_SIZES, reference.noise_beam_size)
    found = {reference: None}
    for k, b1, b2 in product(steps, lengths, noises):
        stops = {0, k // 4, k // 2, min(reference.decoding_early_stopping, k - 1)}
        for e, sampler in product(sorted(stops), choices):
            races = [NO_RACE] + [
                (after, keep)
                for after, keep in product(RACE_AFTER, BEAM_SIZES)
                if after < k - e and 2 * keep <= b1 * b2
            ]
            halting = [n for n in HALT_AFTER if n < k - e]
            for halt, race, precision in product(halting, races, precisions):
                found[Settings(k, e, b1, b2, halt, *race, precision, sampler)] = None
    settings = list(found)
    if len(settings) > MAX_SETTINGS:
        settings = [reference, *Random(0).sample(settings[1:], MAX_SETTINGS - 1)]
    return [each for each in settings if accepts(each)]


def _levels(levels, most):
    return [level for level in levels if level < most] + [most]


def _sampler_choices(
    samplers: Mapping[str, type], options: DecodingOptions
) -> Iterator[SamplerChoice]:
    """Each sampler with all combinations of its boolean settings."""
    for name, kind in samplers.items():
        switches = [
            setting_option(f.name) for f in settings_of(kind) if isinstance(f.default, bool)
        ]
        for values in product((False, True), repeat=len(switches)):
            chosen: dict[str, Any] = dict(zip(switches, values))
            varied = replace(options, **chosen)
            yield _sampler_choice(samplers, name, varied)


def _sampler_choice(samplers, name, options):
    """A sampler, its settings taken from options."""
    values = {
        setting_option(f.name): f.default for kind in samplers.values() for f in settings_of(kind)
    }
    for f in settings_of(samplers[name]):
        values[setting_option(f.name)] = getattr(options, setting_option(f.name))
    return SamplerChoice(name, tuple(sorted(values.items())))


class _Accepted:
    """Which settings the model accepts, asking it as seldom as possible.

    A model is asked only whether there is early stopping, halting or racing at all: it is taken to
    accept either all numbers of steps for them or none. Its answers are cached.
    """

    def __init__(self, options, check):
        self.options, self.check, self.answers = options, check, {}

    def sampler(self, choice):
        """Whether the model accepts a sampler for a single candidate."""
        single = {"length_beam_size": 1, "noise_beam_size": 1, "race_after": 0, "race_keep": 1}
        return self._ask(replace(self.options, **single, **choice.options()))

    def __call__(self, settings):
        try:
            check_options(replace(self.options, **settings.options()))
        except UserError:
            return False
        key = settings._replace(
            decoding_early_stopping=min(settings.decoding_early_stopping, 1),
            halt_after=min(settings.halt_after, 1),
            race_after=min(settings.race_after, 1),
            race_keep=1,
            decoding_precision=None,
        )
        if key not in self.answers:
            self.answers[key] = self._ask(replace(self.options, **key.options()))
        return self.answers[key]

    def _ask(self, options):
        try:
            self.check(options)
        except UserError:
            return False
        return True


def features(settings: Settings, samplers: Sequence[SamplerChoice]) -> list[float]:
    """The coordinates of settings for the surrogates.

    They are scaled so that results differ noticeably at a distance of about 1.

    Args:
        samplers: all that occur in the search space.
    """
    dropped, share = 0.0, 0.0  # candidates that the race drops, in bits
    if settings.race_after:
        dropped = np.log2(settings.num_candidates / settings.race_keep)
        share = dropped * settings.race_after / settings.num_steps
    return [
        1.5 * np.log2(settings.decoding_steps),
        2 * settings.decoding_early_stopping / settings.decoding_steps,
        np.log2(settings.length_beam_size),
        np.log2(settings.noise_beam_size),
        2 / settings.halt_after if settings.halt_after else 0.0,
        dropped,
        share,
        2.0 * settings.low_precision,
        2.0 * (settings.decoding_precision == "fp16"),
        *(2.0 * (settings.sampler == sampler) for sampler in samplers),
    ]


def expected_work(settings: Settings) -> float:
    """The time to expect before anything is measured, in passes through the denoiser."""
    work = float(settings.denoiser_passes())
    if settings.halt_after:
        work *= 0.6 + 0.1 * settings.halt_after
    if settings.low_precision:
        work *= 0.6
    return work + 2  # the encoder, and the choice among candidates
