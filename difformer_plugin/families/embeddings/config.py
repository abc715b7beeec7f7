"""Difformer's configuration, its checks, and the named sizes."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Optional

from difformer_plugin.diffusion.gaussian.rescaling import check_factor
from difformer_plugin.diffusion.positional_schedules import (
    POSITIONAL_SCHEDULES,
    check_gaussian_schedule,
    gaussian_schedule_names,
)
from difformer_plugin.errors import UserError, translated
from difformer_plugin.families.embeddings.corruption import CorruptionConfig, check_corruption
from difformer_plugin.families.embeddings.prediction import PredictionConfig, check_prediction
from difformer_plugin.networks.config import SIZES, NetworkConfig, check_network
from difformer_plugin.options import option


@dataclass
class GaussianConfig(PredictionConfig, CorruptionConfig):
    """The options of the Gaussian process on embeddings."""

    diffusion_steps: int = option(2000, "T, the number of diffusion steps in training")
    noise_schedule: str = option(
        "sqrt", f"noise schedule in training: {', '.join(gaussian_schedule_names())}"
    )
    rescaling_factor: str = option(
        "1.0",
        "F, the factor of noise rescaling in training (Eq. 3), or auto: the smallest of 1, 1.5, 2, "
        "... with which the degeneration score of normal embeddings is at most --max-dgs",
    )
    max_dgs: Optional[float] = option(
        None,
        "DGS_MAX, the threshold of the degeneration score for --rescaling-factor auto and "
        "--rescaling-update-interval (the paper: 0.15)",
    )
    rescaling_update_interval: int = option(
        0, "adapt F to the current embeddings every this many updates; 0: never"
    )
    rescaling_max_change: float = option(0.1, "largest relative change of F when it is adapted")
    min_rescaling_factor: float = option(1.0, "lower bound of F when it is adapted")
    max_rescaling_factor: float = option(100.0, "upper bound of F when it is adapted")
    vp_rf: bool = option(False, "apply F in its variance-preserving form (Eq. 8)")
    rescale_timesteps: bool = option(
        False, "scale the time steps that the denoiser reads to the range from 0 to 1000"
    )
    normalize_input: bool = option(
        False,
        "divide z_t, before the denoiser reads it, by its standard deviation at that time (for "
        "embeddings of deviation 1)",
    )


def time_scale(cfg: Any) -> float:
    """What the denoiser multiplies times by before it embeds them."""
    return 1000.0 / cfg.diffusion_steps if cfg.rescale_timesteps else 1.0


@dataclass
class DifformerConfig(GaussianConfig, NetworkConfig):
    """The options of --arch difformer."""


# The recipe of the paper (Table 21), which the defaults are not: they are those of the authors'
# code. The output of `difformer options model --arch difformer_paper` shows it.
RECIPE: dict[str, Any] = {
    "rescaling_factor": "4.0",
    "self_cond": True,
    "rescale_timesteps": True,
    "embed_norm": True,
    "embed_norm_affine": True,
    "pred_length_offset": True,
    "share_all_embeddings": True,
}
# Also of Table 21, but left out of the smallest size: they slow the start of a training, which on
# little data is all of it (benchmarks/multi30k-random-weights.md).
SLOW_START: dict[str, Any] = {
    "apply_bert_init": True,
    "encoder_learned_pos": True,
    "decoder_learned_pos": True,
}
PAPER: dict[str, dict[str, Any]] = {
    "_paper": RECIPE | SLOW_START,
    "_paper_base": SIZES["_base"] | RECIPE | SLOW_START,
    "_paper_iwslt_de_en": SIZES["_iwslt_de_en"] | RECIPE | SLOW_START | {"dropout": 0.3},
    "_paper_tiny": SIZES["_tiny"] | RECIPE,
}

ARCHITECTURES = {f"difformer{suffix}": options for suffix, options in {**SIZES, **PAPER}.items()}

AUTO = "auto"


@translated()
def given_factor(cfg: Any) -> float | None:
    """The rescaling factor F that the user gave, or None for `auto`.

    Raises:
        UserError: it is neither `auto` nor a number above 0.
    """
    if cfg.rescaling_factor == AUTO:
        return None
    try:
        factor = float(cfg.rescaling_factor)
    except ValueError:
        raise UserError(
            f"--rescaling-factor must be a number above 0 or '{AUTO}', not '{cfg.rescaling_factor}'"
        ) from None
    check_factor(factor)
    return factor


def check_rescaling(cfg: Any) -> None:
    """Raise a UserError if options of noise rescaling are out of range or contradict each other."""
    interval, max_dgs = cfg.rescaling_update_interval, cfg.max_dgs
    if interval < 0:
        raise UserError(f"--rescaling-update-interval must be at least 0, not {interval}")
    needed = given_factor(cfg) is None or interval > 0
    if needed and max_dgs is None:
        raise UserError(
            "--rescaling-factor auto and --rescaling-update-interval need --max-dgs, the threshold "
            "of the degeneration score (the paper: 0.15)"
        )
    if max_dgs is not None and not needed:
        raise UserError(
            f"--max-dgs has no effect with --rescaling-factor {cfg.rescaling_factor}: give "
            "--rescaling-factor auto or --rescaling-update-interval as well"
        )
    if max_dgs is not None and not 0 < max_dgs <= 1:
        raise UserError(f"--max-dgs must lie in (0, 1], not {max_dgs:g}")
    if not cfg.rescaling_max_change > 0:
        raise UserError(f"--rescaling-max-change must be above 0, not {cfg.rescaling_max_change:g}")
    low, high = cfg.min_rescaling_factor, cfg.max_rescaling_factor
    if not 0 < low <= high < float("inf"):
        raise UserError(
            "--min-rescaling-factor must be above 0 and at most --max-rescaling-factor, not "
            f"{low:g} and {high:g}"
        )
    factor = given_factor(cfg)
    if interval > 0 and factor is not None and not low <= factor <= high:
        raise UserError(
            f"--rescaling-factor {factor:g} must lie between --min-rescaling-factor {low:g} and "
            f"--max-rescaling-factor {high:g}, since --rescaling-update-interval adapts it"
        )


def unread_rescaling(cfg: Any) -> Iterator[tuple[str, str]]:
    """Options of noise rescaling that were given but are not read: (name, why not)."""
    if not cfg.rescaling_update_interval:
        for name in ("min_rescaling_factor", "max_rescaling_factor", "rescaling_max_change"):
            if getattr(cfg, name) != getattr(GaussianConfig, name):
                yield name, "without --rescaling-update-interval"
        if cfg.vp_rf and given_factor(cfg) == 1:
            yield "vp_rf", "with --rescaling-factor 1"


@translated()
def check_gaussian(cfg: Any) -> None:
    """Raise a UserError if options of the process are out of range or contradict each other."""
    check_gaussian_schedule(cfg.noise_schedule)
    if cfg.normalize_input and cfg.noise_schedule in POSITIONAL_SCHEDULES:
        raise UserError(
            f"--noise-schedule {cfg.noise_schedule} has no deviation that all tokens share, and "
            "--normalize-input divides by it: leave one of the two out"
        )
    check_prediction(cfg)
    check_rescaling(cfg)
    if cfg.diffusion_steps < 2:
        raise UserError(f"--diffusion-steps must be at least 2, not {cfg.diffusion_steps}")


def check_config(cfg: Any) -> None:
    """Raise a UserError if values are out of range or contradict each other."""
    check_gaussian(cfg)
    check_network(cfg)
    check_corruption(cfg)
