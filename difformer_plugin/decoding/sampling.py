"""From the options of decoding to a sampler of a model, with the checks that both have to pass."""

from typing import Any

from difformer_plugin.decoding.candidates import LENGTH_OPTIONS, TRIED_LENGTH_OPTIONS
from difformer_plugin.decoding.combination import check_guidance
from difformer_plugin.decoding.options import (
    FIXED_LENGTH_OPTIONS,
    SAMPLER_OPTIONS,
    DecodingOptions,
    setting_option,
)
from difformer_plugin.diffusion.sampler import SAMPLERS, Sampler, settings_of
from difformer_plugin.diffusion.timesteps import check_times
from difformer_plugin.errors import UserError, translated
from difformer_plugin.families.contract import FAMILIES, Family
from difformer_plugin.options import flag


def build_sampler(model: Family, options: Any) -> Sampler:
    """The sampler that options choose.

    Raises:
        UserError: see `check_decoding`.
    """
    kind = check_decoding(model, options)
    return model.build_sampler(kind, options, settings(kind, options))


def settings(kind: type[Sampler], options: Any) -> dict[str, Any]:
    """The settings of a sampler among options of decoding, by the sampler's field names."""
    return {f.name: getattr(options, setting_option(f.name)) for f in settings_of(kind)}


def options_of(kind: type[Sampler]) -> set[str]:
    """The names of the options of decoding that set a sampler's settings."""
    return {setting_option(f.name) for f in settings_of(kind)}


def check_decoding(model: Family, options: Any) -> type[Sampler]:
    """Check options of decoding against a model.

    Returns:
        the class of the sampler that they choose.
    Raises:
        UserError: the model has no such sampler, or an option is out of range or not read by it.
    """
    samplers = model.samplers()
    name = options.decoding_sampler or next(iter(samplers))
    if name not in samplers:
        raise UserError(
            f"--decoding-sampler {name} is not for this model, {model.title}: use "
            f"{' or '.join(samplers)}"
        )
    kind = samplers[name]
    own = settings(kind, options)
    with translated(**{field: flag(setting_option(field)) for field in own}):
        kind.check(**own)
    check_read(model, kind, options)
    check_guidance(model, options)
    if kind.ignores_noise(**own) and options.noise_beam_size > 1:
        given = ", ".join(f"{flag(setting_option(field))} {own[field]}" for field in own)
        raise UserError(
            f"--decoding-sampler {name} draws nothing with {given}, so that all candidates of "
            "--noise-beam-size would be equal: set it to 1, or draw at a higher temperature"
        )
    with translated(timesteps="--decoding-timesteps"):
        check_times(options.decoding_timesteps, model.diffusion_steps)
    steps = model.diffusion_steps
    if steps is not None and options.decoding_steps > steps:
        raise UserError(
            f"--decoding-steps must lie between 1 and the model's {steps} diffusion steps, not "
            f"{options.decoding_steps}"
        )
    return kind


def check_read(model: Family, kind: type[Sampler], options: Any) -> None:
    """Refuse options that neither the model nor its sampler reads.

    Some options are read by certain models or samplers only; what those are is asked of all
    models and samplers that are registered.

    Raises:
        UserError: such an option has not its default value.
    """
    read = model.reads | options_of(kind)
    read |= LENGTH_OPTIONS if model.predicts_length else frozenset()
    read -= frozenset() if model.tries_lengths else TRIED_LENGTH_OPTIONS
    read |= frozenset() if kind.grows else FIXED_LENGTH_OPTIONS
    conditional = LENGTH_OPTIONS | FIXED_LENGTH_OPTIONS | SAMPLER_OPTIONS
    conditional = conditional.union(*(family.reads for family in FAMILIES))
    defaults = DecodingOptions()
    for name in sorted(conditional - read):
        if getattr(options, name) != getattr(defaults, name):
            raise UserError(
                f"{flag(name)} does nothing for this model, {model.title}, with "
                f"--decoding-sampler {kind.name}: leave it out ({_readers(model, name)})"
            )


def _readers(model: Family, name: str) -> str:
    """Who reads an option that this model does not, for a message."""
    samplers = model.samplers()
    if own := [own for own, kind in samplers.items() if name in options_of(kind)]:
        return f"it is an option of --decoding-sampler {' and '.join(own)}"
    if name in SAMPLER_OPTIONS:
        # Samplers of several models may have the same name.
        others = {s.name for s in SAMPLERS if name in options_of(s)} - set(samplers)
        return f"it is an option of other models' samplers: {', '.join(sorted(others))}"
    families = sorted(family.title for family in FAMILIES if name in family.reads)
    if families:
        return f"it is an option of {' and '.join(families)}"
    if name in TRIED_LENGTH_OPTIONS:
        return "it is for models that predict the length of a target"
    return "it is for models that fix the length before anything is drawn"
