"""The decoding options, and the types of their values."""

from contextlib import suppress
from dataclasses import Field, dataclass, field, fields, make_dataclass
from typing import Any, Optional, get_args

from fairseq.dataclass import FairseqDataclass

from difformer_plugin.decoding.combination import GuidanceOptions
from difformer_plugin.diffusion import all_samplers  # noqa: F401
from difformer_plugin.diffusion.gaussian.samplers.base import INFILL
from difformer_plugin.diffusion.parameters import ParameterError
from difformer_plugin.diffusion.positional_schedules import (
    gaussian_schedule_names,
)
from difformer_plugin.diffusion.sampler import SAMPLERS, settings_of
from difformer_plugin.diffusion.timesteps import UNIFORM, grid_names, listed_times
from difformer_plugin.networks.precision import PRECISIONS
from difformer_plugin.options import option
from difformer_plugin.reranking.options import RerankingOptions

DECODING_STEPS = 20  # the default K
# Options that need a sampler whose number of tokens does not change from step to step.
FIXED_LENGTH_OPTIONS = frozenset(
    {
        "decoding_early_stopping",
        "decoding_fixed_t",
        "retain_z_0_hat",  # otherwise a prediction has other tokens than the state after the step
    }
)


TYPE_NAMES = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text in quotes",
}


def kind_of(field: Field) -> Any:
    """The type of an option's value, without the None of Optional: bool, int, float or str."""
    return next((kind for kind in get_args(field.type) if kind is not type(None)), field.type)


def fits(value: Any, kind: Any) -> bool:
    """Whether a value is of a type; true is not a number, and 1 may stand for 1.0."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    if kind is int:
        return whole
    return isinstance(value, kind) or (kind is float and whole and abs(value) < 2**53)


def setting_option(setting: str) -> str:
    """The name of the option that sets a sampler's setting: `decoding_eta` for `eta`."""
    return f"decoding_{setting}"


def _sampler_options() -> type:
    """Make a dataclass with an option for each setting of a sampler: `decoding_eta` for `eta`.

    Samplers may share a setting if they agree on its type and default value.
    """
    found: dict[str, tuple[Any, Any, str]] = {}
    for kind in SAMPLERS:
        for own in settings_of(kind):
            spec = own.type, own.default, own.metadata["help"]
            if found.setdefault(setting_option(own.name), spec)[:2] != spec[:2]:
                raise TypeError(f"two samplers define the setting {own.name} differently")
    rows = [
        (name, kind, field(default=default, metadata={"help": text}))
        for name, (kind, default, text) in found.items()
    ]
    return make_dataclass("SamplerOptions", rows, bases=(FairseqDataclass,))


SamplerOptions: Any = _sampler_options()
SAMPLER_OPTIONS = frozenset(f.name for f in fields(SamplerOptions)) - {"_name"}


@dataclass
class DecodingOptions(SamplerOptions, RerankingOptions, GuidanceOptions):
    """Everything that a user can choose in decoding.

    K is the number of listed times, where --decoding-timesteps lists them.
    """

    decoding_steps: int = option(DECODING_STEPS, "K, the number of decoding steps")
    decoding_timesteps: str = option(
        UNIFORM,
        f"the times at which the network is called: {', '.join(grid_names())}, or a falling list "
        "of K of the model's steps 1 to T, as 2000,900,300 (in continuous time: of numbers in "
        "(0, 1], as 1,0.4)",
    )
    decoding_early_stopping: int = option(0, "E: skip the last E decoding steps (Sec. 4.3)")
    decoding_fixed_t: Optional[float] = option(
        None, "give the denoiser this time, in [0, 1), at every step (a probe, Fig. 2a)"
    )
    decoding_noise_schedule: Optional[str] = option(
        None,
        f"noise schedule in decoding: {', '.join(gaussian_schedule_names())}; default: that of "
        "training",
    )
    decoding_rescaling_factor: float = option(
        1.0, "F in decoding; values above 1 reduced quality in the paper (App. C.7)"
    )
    decoding_vp_rf: bool = option(
        False, "apply --decoding-rescaling-factor in its variance-preserving form (Eq. 8)"
    )
    clamping: bool = option(False, "replace z_0-hat by the nearest embeddings after every step")
    soft_clamping: int = option(
        0,
        "in the first M calls of the network, replace z_0-hat by the mean of all embeddings, "
        "weighted by their probabilities: better with few steps",
    )
    infill: str = option(
        INFILL,
        "what overwrites given tokens at each step: z_0 (their prediction, so that z_t follows), "
        "z_t (z_t itself becomes z_0), or noised (z_t becomes z_0 with the noise of the step)",
    )
    constraints_file: Optional[str] = option(
        None,
        "file of words that translations have to contain: for each sentence a line, empty or as "
        '{"prefix": "the house", "anywhere": ["big", "to day"], "suffix": "."}, with the tokens '
        "and subwords of the data (docs/how-to/given-words.md)",
    )
    decoding_sampler: Optional[str] = option(
        None,
        f"sampler: {', '.join(sorted({kind.name for kind in SAMPLERS}))}; each model supports "
        "some of them (docs/decoding.md); default: tweedie for sedd, ancestral for all others",
    )
    length_beam_size: int = option(1, "b1, the number of lengths tried per sentence (Sec. 3.3)")
    length_beam_window: bool = option(
        False,
        "try b1 consecutive lengths around the most likely one, not the b1 most likely lengths",
    )
    length_scale: float = option(
        1.0,
        "multiply predicted lengths by this; a little above 1 leaves room for the subwords that "
        "--collapse-repeats drops",
    )
    noise_beam_size: int = option(1, "b2, the number of candidates per length (Sec. 3.3)")
    collapse_repeats: bool = option(
        False,
        "drop a subword that equals the one before it, unless the source has such a pair or words "
        "are given",
    )
    force_length: Optional[int] = option(
        None, "translate to exactly this many subwords (App. C.9); needs --length-beam-size 1"
    )
    force_length_ratio: Optional[float] = option(
        None,
        "translate to this many subwords per source subword; needs --length-beam-size 1",
    )
    decoding_autoregressive: bool = option(
        False,
        "sample from left to right: keep the first --block-size subwords of a reverse process, and "
        "begin another one for what follows",
    )
    block_size: int = option(
        1, "number of subwords that --decoding-autoregressive keeps of each reverse process"
    )
    race_after: int = option(
        0, "after this many steps, continue with the best candidates of a sentence; 0: with all"
    )
    race_keep: int = option(1, "number of candidates that continue after --race-after steps")
    decoding_precision: Optional[str] = option(
        None,
        f"precision of the denoiser: {', '.join(PRECISIONS)}; default: the model's own, which "
        "rounding always uses; refused where it is slower than fp32",
    )
    force_precision: bool = option(
        False, "decode in the --decoding-precision even where it is slower than fp32"
    )
    retain_z_0_hat: bool = option(
        False, "with --retain-iter-history, keep z_0-hat (Fig. 4) in the history instead of z_t"
    )
    history_file: Optional[str] = option(
        None,
        "with --retain-iter-history, write the tokens of each step and their probabilities to this "
        "new file as JSON lines",
    )

    def __post_init__(self) -> None:
        """Count the listed times; what cannot be read is refused by `checks.check_options`."""
        if not isinstance(self.decoding_timesteps, str):
            return
        with suppress(ParameterError):
            times = listed_times(self.decoding_timesteps)
            if times is not None and self.decoding_steps == DECODING_STEPS:
                self.decoding_steps = len(times)

    @property
    def forces_length(self) -> bool:
        """Whether an option fixes the length, so that the length predictor is not used."""
        return self.force_length is not None or self.force_length_ratio is not None
