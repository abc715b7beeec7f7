"""The settings that `difformer tune` searches over, and their features for the surrogates."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from difformer_plugin.decoding.options import DecodingOptions
from difformer_plugin.diffusion.timesteps import UNIFORM, grid_names


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
        on = [
            name.removeprefix("decoding_") + ("" if value is True else f" {value:g}")
            for name, value in self.settings
            if value
        ]
        name = self.name or "the model's sampler"
        return f"{name} with {' and '.join(on)}" if on else name


class Settings(NamedTuple):
    """The options that are searched over, and the sampler."""

    decoding_steps: int
    decoding_early_stopping: int
    length_beam_size: int
    noise_beam_size: int
    race_after: int
    race_keep: int
    decoding_precision: str | None
    sampler: SamplerChoice = SamplerChoice()
    decoding_timesteps: str = UNIFORM
    soft_clamping: int = 0
    collapse_repeats: bool = False
    length_scale: float = 1.0
    decoding_rescaling_factor: float = 1.0

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
        if self.race_after:
            parts.append(f"race {self.race_after} to {self.race_keep}")
        if self.decoding_timesteps != UNIFORM:
            parts.append(f"times {self.decoding_timesteps}")
        if self.soft_clamping:
            parts.append(f"soft {self.soft_clamping}")
        if self.collapse_repeats:
            parts.append("collapsed")
        if self.length_scale != 1:
            parts.append(f"lengths x {self.length_scale:g}")
        if self.decoding_rescaling_factor != 1:
            parts.append(f"F {self.decoding_rescaling_factor:g}")
        if self.sampler.name:
            parts.append(str(self.sampler))
        return ", ".join([*parts, self.decoding_precision or "the model's precision"])

    def denoiser_passes(self) -> int:
        """Passes of candidates through the denoiser for one sentence."""
        if not self.race_after:
            return self.num_steps * self.num_candidates
        after = (self.num_steps - self.race_after) * self.race_keep
        return self.race_after * self.num_candidates + after


class Variant(NamedTuple):
    """Options that change what a call of the network gives, and hardly its time."""

    decoding_timesteps: str = UNIFORM
    soft_clamping: int = 0
    collapse_repeats: bool = False
    length_scale: float = 1.0
    decoding_rescaling_factor: float = 1.0


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
        dropped,
        share,
        2.0 * settings.low_precision,
        2.0 * (settings.decoding_precision == "fp16"),
        *(2.0 * (settings.decoding_timesteps == grid) for grid in grid_names()[1:]),
        2.0 * (settings.soft_clamping > 0),
        2.0 * settings.collapse_repeats,
        25 * (settings.length_scale - 1),
        2 * np.log2(settings.decoding_rescaling_factor),
        *(2.0 * (settings.sampler == sampler) for sampler in samplers),
    ]


def expected_work(settings: Settings) -> float:
    """The time to expect before anything is measured, in passes through the denoiser."""
    # soft clamping reads the whole vocabulary, which costs about as much as a pass
    work = float(settings.denoiser_passes() + settings.soft_clamping * settings.num_candidates)
    if settings.low_precision:
        work *= 0.6
    return work + 2  # the encoder, and the choice among candidates
