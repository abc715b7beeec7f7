"""The configuration of discrete diffusion models, its checks, and the named sizes."""

from dataclasses import dataclass
from typing import Optional

from difformer_plugin.diffusion.categorical.schedules import NAMES, check_schedule
from difformer_plugin.errors import UserError
from difformer_plugin.networks.config import SIZES, NetworkConfig, check_network
from difformer_plugin.options import option

# which processes each objective is defined for
PAIRS = {
    "d3pm": ("uniform", "absorbing", "nearest"),
    "mdlm": ("absorbing",),
    "sedd": ("uniform", "absorbing"),
    "flexible": ("absorbing",),
}
PROCESSES = PAIRS["d3pm"]
CONTINUOUS = ("sedd", "flexible")
# of the paper (D3PM, Sec. 5.1); for the absorbing process it is log_linear
SCHEDULE = {"uniform": "cosine", "absorbing": "log_linear", "nearest": "mutual_information"}


@dataclass
class DiscreteDiffusionConfig(NetworkConfig):
    latent_dim: int = option(512, "dimension of the embeddings")
    # diffusion
    process: str = option(
        "absorbing",
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
        f"noise schedule: {', '.join(NAMES)}; default: cosine for uniform, log_linear for "
        "absorbing, which is its mutual_information, and mutual_information for nearest",
    )
    diffusion_steps: int = option(1000, "T, the number of diffusion steps in discrete time")
    continuous_time: bool = option(
        False, "train mdlm in continuous time (sedd and flexible always are, d3pm never)"
    )
    neighbours: int = option(20, "neighbours of each type in the graph of --process nearest")
    neighbour_embeddings: Optional[str] = option(
        None,
        "embeddings that --process nearest finds neighbours in: a checkpoint, as a teacher's, or "
        "a text file of vectors; default: those of --decoder-embed-path",
    )


ARCHITECTURES = {
    f"discrete_diffusion{suffix}": sizes | {"latent_dim": sizes.get("model_dim", 512)}
    for suffix, sizes in SIZES.items()
}


def steps(cfg):
    """T, or None in continuous time."""
    return None if cfg.continuous_time or cfg.objective in CONTINUOUS else cfg.diffusion_steps


def check_config(cfg):
    """Raise a UserError for values that no discrete diffusion model can have."""
    if cfg.objective not in PAIRS:
        raise UserError(
            f"--objective {cfg.objective}: no such objective; there are {', '.join(PAIRS)}"
        )
    if cfg.process not in PROCESSES:
        raise UserError(
            f"--process {cfg.process}: no such process; there are {', '.join(PROCESSES)}"
        )
    if cfg.process not in PAIRS[cfg.objective]:
        raise UserError(
            f"--objective {cfg.objective} is not defined for --process {cfg.process}: use "
            f"--process {' or '.join(PAIRS[cfg.objective])}, or --objective d3pm"
        )
    if cfg.noise_schedule is not None:
        check_schedule(cfg.noise_schedule)
    if cfg.continuous_time and cfg.objective != "mdlm":
        why = "is always" if cfg.objective in CONTINUOUS else "cannot be"
        raise UserError(
            f"--continuous-time is a choice of --objective mdlm; {cfg.objective} {why} in "
            "continuous time: leave it out"
        )
    if cfg.diffusion_steps < 1:
        raise UserError(f"--diffusion-steps must be at least 1, not {cfg.diffusion_steps}")
    if cfg.neighbours < 1:
        raise UserError(f"--neighbours must be at least 1, not {cfg.neighbours}")
    if cfg.neighbour_embeddings and cfg.process != "nearest":
        raise UserError(
            f"--neighbour-embeddings does nothing with --process {cfg.process}: leave it out"
        )
    if cfg.self_cond and cfg.objective == "flexible":
        raise UserError(
            "--self-cond cannot go with --objective flexible, where a step's tokens are not those "
            "of the step before: leave it out"
        )
    check_network(cfg)
