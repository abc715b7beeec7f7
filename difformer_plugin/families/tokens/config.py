"""The configuration of discrete diffusion models, its checks, and the named sizes."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Optional

from difformer_plugin.diffusion.categorical.samplers.base import DISTRIBUTION, RATIOS
from difformer_plugin.diffusion.schedules import CATEGORICAL, get_schedule, schedule_names
from difformer_plugin.errors import UserError, translated
from difformer_plugin.networks.config import SIZES, NetworkConfig, check_network
from difformer_plugin.options import option

UNIFORM, ABSORBING, NEAREST = PROCESSES = ("uniform", "absorbing", "nearest")
# Defaults of D3PM, Sec. 5.1. For the absorbing process, mutual_information is log_linear.
DEFAULT_SCHEDULE = {UNIFORM: "cosine", ABSORBING: "log_linear", NEAREST: "mutual_information"}


@dataclass(frozen=True)
class ObjectiveKind:
    """What an objective needs of a model.

    Attributes:
        processes: the forward processes that it is defined for.
        continuous_time: whether its time is continuous; None where the user has the choice.
        reads_logits_as: what the network's logits stand for.
        model: the path `module:class` of the model that it trains, if not `DiscreteDiffusion`.
    """

    processes: tuple[str, ...]
    continuous_time: bool | None
    reads_logits_as: str = DISTRIBUTION
    model: str | None = None


OBJECTIVES = {
    "d3pm": ObjectiveKind(PROCESSES, False),
    "mdlm": ObjectiveKind((ABSORBING,), None),
    "sedd": ObjectiveKind((UNIFORM, ABSORBING), True, RATIOS),
    "flexible": ObjectiveKind(
        (ABSORBING,), True, model="difformer_plugin.families.insertion.model:InsertionDiffusion"
    ),
}


@dataclass
class DiscreteDiffusionConfig(NetworkConfig):
    latent_dim: int = option(512, "dimension of the embeddings")
    # diffusion
    process: str = option(
        ABSORBING,
        "how tokens are corrupted: uniform (any type), absorbing (a mask) or nearest (types with "
        "similar embeddings)",
    )
    objective: str = option(
        "mdlm",
        "what is trained: d3pm (with any process), mdlm (absorbing), sedd (uniform, absorbing) or "
        "flexible (absorbing; lengths that grow)",
    )
    noise_schedule: Optional[str] = option(
        None,
        f"noise schedule: {', '.join(schedule_names(CATEGORICAL))}; default: cosine for uniform, "
        "log_linear for absorbing, which is its mutual_information, and mutual_information for "
        "nearest",
    )
    diffusion_steps: int = option(1000, "T, the number of diffusion steps in discrete time")
    continuous_time: bool = option(
        False, "train mdlm in continuous time (sedd and flexible always are, d3pm never)"
    )
    neighbours: int = option(20, "neighbours of each type in the graph of --process nearest")
    neighbour_embeddings: Optional[str] = option(
        None,
        "embeddings in which --process nearest finds neighbours: a checkpoint, such as a "
        "teacher's, or a text file of vectors; default: those of --decoder-embed-path",
    )


ARCHITECTURES = {
    f"discrete_diffusion{suffix}": sizes | {"latent_dim": sizes.get("model_dim", 512)}
    for suffix, sizes in SIZES.items()
}


def num_steps_or_none(cfg: Any) -> int | None:
    """T, or None in continuous time."""
    continuous = OBJECTIVES[cfg.objective].continuous_time
    return None if cfg.continuous_time or continuous else cfg.diffusion_steps


def unread(cfg: Any) -> Iterator[tuple[str, str]]:
    """Options that were given but are not read: (name, why not)."""
    if cfg.process != NEAREST and cfg.neighbours != DiscreteDiffusionConfig.neighbours:
        yield "neighbours", f"with --process {cfg.process}"
    default = DiscreteDiffusionConfig.diffusion_steps
    if num_steps_or_none(cfg) is None and cfg.diffusion_steps != default:
        yield "diffusion_steps", "in continuous time"


@translated()
def check_config(cfg: Any) -> None:
    """Raise a UserError for values that no discrete diffusion model can have."""
    if cfg.objective not in OBJECTIVES:
        raise UserError(
            f"--objective {cfg.objective}: no such objective; there are {', '.join(OBJECTIVES)}"
        )
    if cfg.process not in PROCESSES:
        raise UserError(
            f"--process {cfg.process}: no such process; there are {', '.join(PROCESSES)}"
        )
    objective = OBJECTIVES[cfg.objective]
    if cfg.process not in objective.processes:
        raise UserError(
            f"--objective {cfg.objective} is not defined for --process {cfg.process}: use "
            f"--process {' or '.join(objective.processes)}, or --objective d3pm"
        )
    if cfg.noise_schedule is not None:
        get_schedule(cfg.noise_schedule, CATEGORICAL)
    if cfg.continuous_time and objective.continuous_time is not None:
        why = "is always" if objective.continuous_time else "cannot be"
        raise UserError(
            f"--continuous-time is a choice of --objective mdlm; {cfg.objective} {why} in "
            "continuous time: leave it out"
        )
    if cfg.diffusion_steps < 1:
        raise UserError(f"--diffusion-steps must be at least 1, not {cfg.diffusion_steps}")
    if cfg.neighbours < 1:
        raise UserError(f"--neighbours must be at least 1, not {cfg.neighbours}")
    if cfg.neighbour_embeddings and cfg.process != NEAREST:
        raise UserError(
            f"--neighbour-embeddings does nothing with --process {cfg.process}: leave it out"
        )
    check_network(cfg)
