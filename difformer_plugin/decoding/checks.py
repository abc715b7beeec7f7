"""Checks of the decoding options that do not depend on a model."""

import logging
from collections.abc import Iterable
from dataclasses import fields
from functools import cache
from typing import Any

from difformer_plugin.decoding.options import TYPE_NAMES, fits, kind_of
from difformer_plugin.diffusion.gaussian.rescaling import check_factor
from difformer_plugin.diffusion.gaussian.samplers.base import INFILLS
from difformer_plugin.diffusion.positional_schedules import check_gaussian_schedule
from difformer_plugin.diffusion.timesteps import listed_times
from difformer_plugin.errors import UserError, translated
from difformer_plugin.networks.encoder import LENGTH_CLASSES
from difformer_plugin.networks.precision import PRECISIONS
from difformer_plugin.options import flag
from difformer_plugin.reranking.options import check_reranking, uses_mbr

logger = logging.getLogger(__name__)


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


def unread_options(options: Any, retain_history: bool) -> Iterable[tuple[str, str]]:
    """Options that were given, but that nothing reads without another one: (name, why not).

    They are not refused, since checkpoints and settings files may have them.

    Args:
        retain_history: whether the tokens of every step are kept.
    """
    if options.length_beam_window and options.length_beam_size == 1:
        yield "length_beam_window", "with --length-beam-size 1"
    if options.mbr_remove_bpe is not None and not uses_mbr(options):
        yield "mbr_remove_bpe", "without --bleu-mbr or --rerank mbr=1"
    if options.decoding_vp_rf and options.decoding_rescaling_factor == 1:
        yield "decoding_vp_rf", "without --decoding-rescaling-factor"
    if options.force_precision and options.decoding_precision in (None, "fp32"):
        yield "force_precision", "without a --decoding-precision that could be slower"
    if options.retain_z_0_hat and not retain_history:
        yield "retain_z_0_hat", "without --retain-iter-history"


def warn_of_unread_options(options: Any, retain_history: bool) -> None:
    """Log each of the `unread_options`, once in a process."""
    for name, reason in unread_options(options, retain_history):
        _warn(name, reason)


@cache
def _warn(name: str, reason: str) -> None:
    logger.warning("%s has no effect %s: leave it out", flag(name), reason)
