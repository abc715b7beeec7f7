"""Ways of drawing from a discrete diffusion model, by the options of decoding."""

from difformer_plugin.diffusion.categorical.samplers import Ancestral, Confident, Scored
from difformer_plugin.diffusion.categorical.schedules import decoding_times
from difformer_plugin.diffusion.categorical.scores import tau_leap, tweedie
from difformer_plugin.diffusion.insertion.sampler import Growing
from difformer_plugin.errors import UserError
from difformer_plugin.families.base import refuse_options
from difformer_plugin.families.tokens.config import steps

GAUSSIAN = (
    "decoding_noise_schedule",
    "decoding_rescaling_factor",
    "decoding_vp_rf",
    "clamping",
)
GROWING = (
    "length_beam_size",
    "length_beam_window",
    "force_length",
    "force_length_ratio",
    "decoding_early_stopping",
    "halt_after",
    "race_after",
    "decoding_fixed_t",
    "retain_z_0_hat",  # a step's predictions are not of the tokens that it leaves
)


def known(process, objective):
    """The samplers that a model has, its own first."""
    if objective == "sedd":
        return ["tweedie", "tau_leaping"]
    if objective == "flexible":
        return ["ancestral"]
    return ["ancestral"] + ["confidence"] * (process == "absorbing")


def check_sampler(cfg, options):
    """The name of the sampler and the times of its steps.

    Args:
        cfg: DiscreteDiffusionConfig; options: DecodingOptions.
    Raises:
        UserError: the options are not for such a model, or contradict each other.
    """
    refuse_options(options, GAUSSIAN, "discrete diffusion")
    names = known(cfg.process, cfg.objective)
    name = options.decoding_sampler or names[0]
    if name not in names:
        raise UserError(
            f"--decoding-sampler {name} is not for a model of --process {cfg.process} --objective "
            f"{cfg.objective}: use {' or '.join(names)}"
        )
    temperature = options.decoding_temperature
    if not 0 <= temperature < float("inf"):
        raise UserError(f"--decoding-temperature must be at least 0, not {temperature:g}")
    if options.decoding_remasking and name != "confidence":
        raise UserError("--decoding-remasking needs --decoding-sampler confidence")
    if name == "confidence" and temperature == 0 and options.noise_beam_size > 1:
        raise UserError(
            "--decoding-sampler confidence draws nothing at --decoding-temperature 0, so that all "
            "of --noise-beam-size would be one: set it to 1, or the temperature above 0"
        )
    if cfg.objective == "flexible":
        refuse_options(options, GROWING, "--objective flexible, whose lengths grow")
    return name, decoding_times(steps(cfg), options.decoding_steps)


def build_sampler(model, options):
    """The reverse process that `reverse_process` steps through.

    Args:
        model: DiscreteDiffusion; options: DecodingOptions.
    Raises:
        UserError: as of `check_sampler`.
    """
    name, times = check_sampler(model.cfg, options)
    arguments = model.process, times, model.vocabulary, model.logits
    temperature = options.decoding_temperature
    if model.cfg.objective == "flexible":
        return Growing(
            model.process.schedule,
            *arguments[1:],
            model.denoiser.missing,
            model.max_positions()[1],
            temperature,
        )
    if name == "confidence":
        return Confident(*arguments, temperature, remasking=options.decoding_remasking)
    if name == "ancestral":
        return Ancestral(*arguments, temperature)
    return Scored(*arguments, temperature, law=tau_leap if name == "tau_leaping" else tweedie)
