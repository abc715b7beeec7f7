"""Which settings `difformer tune` searches: good starts first, then a sample of all."""

import math
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate, product, takewhile
from random import Random
from typing import Any

from difformer_plugin.decoding.checks import check_options
from difformer_plugin.decoding.options import DecodingOptions, setting_option
from difformer_plugin.diffusion.sampler import settings_of
from difformer_plugin.diffusion.timesteps import grid_names
from difformer_plugin.errors import UserError
from difformer_plugin.tuning.settings import SamplerChoice, Settings, Variant, expected_work

STEPS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 40, 50, 75, 100, 150, 200)
BEAM_SIZES = (1, 2, 3, 5, 7, 10, 15, 20, 30)
RACE_AFTER = (1, 2, 3, 5, 8, 12)
NO_RACE = (0, 1)  # race_after, race_keep
GOOD_STEPS, FAVOURITE = (2, 4, 6, 10), ("quadratic", 1)  # times and soft clamping
GOOD_SCALE = 1.04
LENGTH_SCALES = (1.0, GOOD_SCALE, 1.08)  # above 1 only where repeats are collapsed
MAX_SETTINGS = 20_000  # more are sampled down to this many, which keeps the surrogates fast


def search_space(
    options: DecodingOptions,
    precisions: Sequence[str],
    samplers: Mapping[str, type],
    check: Callable[[DecodingOptions], Any],
) -> list[Settings]:
    """The settings to search; none exceeds the reference in steps or candidates.

    Args:
        options: of the reference; what is not searched over keeps its value.
        precisions: values of --decoding-precision.
        samplers: the model's, by name, its default first.
        check: raises a UserError for options that the model refuses.
    Returns:
        the settings: the reference first, then those of `good_starts`, and of all others as many as
        make MAX_SETTINGS, at random.
    Raises:
        UserError: the model refuses the reference.
    """
    check(options)
    accepts = _Accepted(options, check)
    own = _sampler_choice(samplers, options.decoding_sampler or next(iter(samplers)), options)
    others = [each for each in _sampler_choices(samplers, options) if accepts.alone(each.options())]
    choices = list(dict.fromkeys([own, *others]))
    variants = [each for each in _variants(options) if accepts.alone(each._asdict())]
    reference = Settings.of(options, own)
    blocks = _blocks(reference, choices, precisions, variants)
    sizes = [math.prod(map(len, axes)) for axes in blocks]
    numbers: Sequence[int] = range(sum(sizes))
    if len(numbers) > MAX_SETTINGS:
        numbers = Random(0).sample(numbers, MAX_SETTINGS)
    ends = list(accumulate(sizes))
    found = dict.fromkeys([reference, *good_starts(reference, precisions, variants)])
    for number in numbers:
        block = bisect_right(ends, number)
        found[_combined(blocks[block], number - ends[block] + sizes[block])] = None
    return [each for each in found if accepts(each)][:MAX_SETTINGS]


def good_starts(
    reference: Settings, precisions: Sequence[str], variants: Sequence[Variant]
) -> list[Settings]:
    """Settings that are often as good as twenty steps, to be measured before all others.

    The fastest come first, so that a small budget suffices for some.

    Args:
        precisions: of which the first is used.
        variants: those that the model accepts.
    """
    favourite = max(
        variants,
        key=lambda each: (
            each.collapse_repeats,
            each[:2] == FAVOURITE,
            each.length_scale == GOOD_SCALE,
        ),
    )
    starts = [
        reference._replace(
            decoding_steps=k,
            decoding_early_stopping=0,
            noise_beam_size=noises,
            race_after=0,
            race_keep=1,
            decoding_precision=precisions[0],
            **favourite._asdict(),
        )
        for k in GOOD_STEPS
        for noises in {1, reference.noise_beam_size}
        if k < reference.decoding_steps
    ]
    return sorted(starts, key=expected_work)


def starts_in(space: Sequence[Settings]) -> list[Settings]:
    """The good starts of a space of `search_space`, behind its reference."""
    leading = space[1 : 1 + 2 * len(GOOD_STEPS)]
    return list(takewhile(lambda each: each.decoding_steps in GOOD_STEPS, leading))


def _variants(options: DecodingOptions) -> list[Variant]:
    """All variants; the factors are the reference's and two others near it."""
    factor = options.decoding_rescaling_factor
    values = product(
        grid_names(),
        sorted({0, 1, options.soft_clamping}),
        (False, True),
        sorted({options.length_scale, *LENGTH_SCALES}),
        (factor, 0.7 * factor, 1.4 * factor),
    )
    found = [Variant(*each) for each in values]
    own = options.length_scale
    return [each for each in found if each.collapse_repeats or each.length_scale == own]


def _blocks(
    reference: Settings,
    choices: Sequence[SamplerChoice],
    precisions: Sequence[str],
    variants: Sequence[Variant],
) -> list[list[Sequence[Any]]]:
    """The space as blocks, each of which is the product of its axes.

    The axes are (K, b1, b2), E and race, race, precision, sampler and variant.
    """
    blocks: list[list[Sequence[Any]]] = []
    for k, b1, b2 in product(
        _levels(STEPS, reference.decoding_steps),
        _levels(BEAM_SIZES, reference.length_beam_size),
        _levels(BEAM_SIZES, reference.noise_beam_size),
    ):
        for e in sorted({0, k // 4, k // 2, min(reference.decoding_early_stopping, k - 1)}):
            races = [NO_RACE] + [
                (after, keep)
                for after, keep in product(RACE_AFTER, BEAM_SIZES)
                if after < k - e and 2 * keep <= b1 * b2
            ]
            own = [each for each in variants if each.soft_clamping < k - e]
            blocks.append([[(k, e, b1, b2)], races, precisions, choices, own])
    return blocks


def _combined(axes: Sequence[Sequence[Any]], number: int) -> Settings:
    """The settings of a block with this number."""
    chosen: list[Any] = []
    for axis in reversed(axes):
        number, place = divmod(number, len(axis))
        chosen.append(axis[place])
    variant, sampler, precision, race, sizes = chosen
    own = (*sizes, *race, precision, sampler)
    return Settings(*own, **variant._asdict())


def _levels(levels, most):
    return [level for level in levels if level < most] + [most]


def _sampler_choices(
    samplers: Mapping[str, type], options: DecodingOptions
) -> Iterator[SamplerChoice]:
    """Each sampler with all combinations of its switches, and of what its settings try."""
    for name, kind in samplers.items():
        tried: dict[str, Any] = {}
        for f in settings_of(kind):
            own = setting_option(f.name)
            switch = isinstance(f.default, bool)
            others = (False, True) if switch else (getattr(options, own), *f.metadata["tries"])
            tried[own] = dict.fromkeys(others)
        for values in product(*tried.values()):
            varied = replace(options, **dict(zip(tried, values)))
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

    A model is asked only whether there is early stopping or racing at all: it is taken to
    accept either all numbers of steps for them or none. Its answers are cached.
    """

    def __init__(self, options, check):
        self.options, self.check, self.answers = options, check, {}

    def alone(self, values):
        """Whether the model accepts some options for a single candidate."""
        single = {"length_beam_size": 1, "noise_beam_size": 1, "race_after": 0, "race_keep": 1}
        return self._ask(replace(self.options, **single | values))

    def __call__(self, settings):
        try:
            check_options(replace(self.options, **settings.options()))
        except UserError:
            return False
        key = settings._replace(
            decoding_early_stopping=min(settings.decoding_early_stopping, 1),
            race_after=min(settings.race_after, 1),
            race_keep=1,
            decoding_precision=None,
            **Variant()._asdict(),  # those of the space are accepted with any steps and beams
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
