"""The configuration of diffusion with a growing length, its checks, and the named sizes."""

from dataclasses import dataclass
from typing import Any, Optional

from difformer_plugin.diffusion.schedules import CATEGORICAL, get_schedule, schedule_names
from difformer_plugin.errors import UserError, translated
from difformer_plugin.networks.config import SIZES, NetworkConfig, check_network
from difformer_plugin.options import option


@dataclass
class InsertionDiffusionConfig(NetworkConfig):
    latent_dim: int = option(512, "dimension of the embeddings")
    noise_schedule: Optional[str] = option(
        None, f"noise schedule: {', '.join(schedule_names(CATEGORICAL))}; default: log_linear"
    )


ARCHITECTURES = {
    f"insertion_diffusion{suffix}": sizes | {"latent_dim": sizes.get("model_dim", 512)}
    for suffix, sizes in SIZES.items()
}


@translated()
def check_config(cfg: Any) -> None:
    """Raise a UserError for values that no such model can have."""
    if cfg.noise_schedule is not None:
        get_schedule(cfg.noise_schedule, CATEGORICAL)
    if cfg.self_cond:
        raise UserError(
            "--self-cond cannot go with lengths that grow, where the tokens "
            "of a step are not those of the step before: leave it out"
        )
    check_network(cfg)
