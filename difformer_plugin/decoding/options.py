"""The decoding options, and the checks that do not depend on a model."""

from contextlib import suppress
from dataclasses import Field, dataclass, field, fields, make_dataclass
from typing import Any, Optional, get_args

from fairseq.dataclass import FairseqDataclass

from difformer_plugin.decoding.combination import GuidanceOptions
from difformer_plugin.diffusion import all_samplers  # noqa: F401
from difformer_plugin.diffusion.gaussian.rescaling import check_factor
from difformer_plugin.diffusion.gaussian.samplers.base import INFILL, INFILLS
from difformer_plugin.diffusion.parameters import ParameterError
from difformer_plugin.diffusion.positional_schedules import (
    check_gaussian_schedule,
    gaussian_schedule_names,
)
from difformer_plugin.diffusion.sampler import SAMPLERS, settings_of
from difformer_plugin.diffusion.timesteps import UNIFORM, grid_names, listed_times
from difformer_plugin.errors import UserError, translated
from difformer_plugin.networks.encoder import LENGTH_CLASSES
from difformer_plugin.networks.precision import PRECISIONS
from difformer_plugin.options import flag, option
from difformer_plugin.reranking.options import RerankingOptions, check_reranking

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
        """Count the listed times; what cannot be read is refused by `check_options`."""
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


def check_options(options: Any) -> None:
    """Check the options without a model; `sampling.check_decoding` checks them against one.

    Raises:
        UserError: an option has the wrong type or is out of range, or options contradict each
            other.
    """
    for f in fields(options):
        value = getattr(options, f.name)
        optional = value is None and f.default is None
        if f.name != "_name" and not optional and not fits(value, kind_of(f)):
            raise UserError(f"{f.name} must be {TYPE_NAMES[kind_of(f)]}, not {repr(value)[:80]}")
    check_timesteps(options)
    if options.decoding_steps < 1:
        raise UserError(f"--decoding-steps must be at least 1, not {options.decoding_steps}")
    if not 0 <= options.decoding_early_stopping < options.decoding_steps:
        raise UserError(
            f"--decoding-early-stopping must lie between 0 and {options.decoding_steps - 1}, "
            f"below --decoding-steps, not {options.decoding_early_stopping}"
        )
    if options.decoding_fixed_t is not None and not 0 <= options.decoding_fixed_t < 1:
        raise UserError(f"--decoding-fixed-t must be in [0, 1), not {options.decoding_fixed_t:g}")
    with translated(
        noise_schedule="--decoding-noise-schedule", rescaling_factor="--decoding-rescaling-factor"
    ):
        if options.decoding_noise_schedule is not None:
            check_gaussian_schedule(options.decoding_noise_schedule)
        check_factor(options.decoding_rescaling_factor)
    if options.soft_clamping < 0:
        raise UserError(f"--soft-clamping must be at least 0, not {options.soft_clamping}")
    if options.soft_clamping and options.clamping:
        raise UserError("--clamping and --soft-clamping exclude each other: choose one")
    if options.infill not in INFILLS:
        raise UserError(
            f"--infill must be {', '.join(INFILLS[:-1])} or {INFILLS[-1]}, not {options.infill}"
        )
    for name in ("length_beam_size", "noise_beam_size"):
        if getattr(options, name) < 1:
            raise UserError(f"{flag(name)} must be at least 1, not {getattr(options, name)}")
    if options.length_beam_size > LENGTH_CLASSES:
        raise UserError(
            f"--length-beam-size must be at most {LENGTH_CLASSES}, the number of length classes, "
            f"not {options.length_beam_size}"
        )
    if options.block_size < 1:
        raise UserError(f"--block-size must be at least 1, not {options.block_size}")
    if options.block_size > 1 and not options.decoding_autoregressive:
        raise UserError(
            "--block-size has no effect without --decoding-autoregressive: give both or neither"
        )
    check_shortcuts(options)
    check_reranking(options)
    if options.force_length is not None and options.force_length_ratio is not None:
        raise UserError("--force-length and --force-length-ratio exclude each other: choose one")
    if not 0.5 <= options.length_scale <= 2:
        raise UserError(f"--length-scale must lie between 0.5 and 2, not {options.length_scale:g}")
    if options.forces_length and options.length_scale != 1:
        raise UserError("--length-scale has no effect on a forced length: leave one of them out")
    if options.force_length is not None and options.force_length < 1:
        raise UserError(f"--force-length must be at least 1, not {options.force_length}")
    ratio = options.force_length_ratio
    if ratio is not None and not 0 < ratio < float("inf"):
        raise UserError(f"--force-length-ratio must be a number above 0, not {ratio:g}")
    if options.forces_length and options.length_beam_size > 1:
        raise UserError(
            "--force-length and --force-length-ratio leave one length: set --length-beam-size 1"
        )


@translated(timesteps="--decoding-timesteps")
def check_timesteps(options: Any) -> None:
    """Check --decoding-timesteps.

    Raises:
        UserError: it names no grid and is no list of times, or has not K of them.
    """
    times = listed_times(options.decoding_timesteps)
    if times is not None and len(times) != options.decoding_steps:
        raise UserError(
            f"--decoding-timesteps lists {len(times)} times, but --decoding-steps is "
            f"{options.decoding_steps}: leave one of them out"
        )


def check_shortcuts(options: Any) -> None:
    """Check the options of racing and precision.

    Raises:
        UserError: one is out of range, or they contradict each other.
    """
    steps = options.decoding_steps - options.decoding_early_stopping
    if options.race_after and not 0 < options.race_after < steps:
        raise UserError(
            f"--race-after must lie between 1 and {steps - 1}, less than the number of decoding "
            f"steps taken, or be 0, not {options.race_after}"
        )
    if options.race_keep < 1:
        raise UserError(f"--race-keep must be at least 1, not {options.race_keep}")
    candidates = options.length_beam_size * options.noise_beam_size
    if options.race_after and options.race_keep >= candidates:
        raise UserError(
            f"--race-keep {options.race_keep} of {candidates} candidates drops none: it must be "
            "less than --length-beam-size times --noise-beam-size"
        )
    if options.race_keep > 1 and not options.race_after:
        raise UserError("--race-keep has no effect without --race-after: give both or neither")
    if options.decoding_precision not in (None, *PRECISIONS):
        raise UserError(
            f"--decoding-precision: no such precision as {options.decoding_precision}; there are "
            f"{', '.join(PRECISIONS)}"
        )
