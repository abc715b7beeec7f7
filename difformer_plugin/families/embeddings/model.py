"""Difformer, registered with fairseq: Gaussian diffusion of token embeddings."""

from typing import Any

from fairseq.models import register_model

from difformer_plugin.families.architectures import register_architectures
from difformer_plugin.families.embeddings.base import EmbeddingDiffusionModel
from difformer_plugin.families.embeddings.config import (
    ARCHITECTURES,
    DifformerConfig,
    check_config,
    time_scale,
)
from difformer_plugin.families.embeddings.objective import DifformerLoss
from difformer_plugin.networks.building import build_networks
from difformer_plugin.networks.config import with_defaults


@register_model("difformer", dataclass=DifformerConfig)
class Difformer(EmbeddingDiffusionModel):
    """Gaussian diffusion on learned embeddings with an encoder-decoder Transformer (Sec. 3.3)."""

    title = "a Difformer"
    architectures = ARCHITECTURES
    criterion = "difformer_loss"
    objective = DifformerLoss

    @classmethod
    def build_model(cls, cfg: Any, task: Any) -> "Difformer":
        """Build a model for the task's dictionaries."""
        cfg = with_defaults(cfg, DifformerConfig)
        check_config(cfg)
        dictionaries = task.source_dictionary, task.target_dictionary
        return cls(cfg, *build_networks(cfg, *dictionaries, time_scale(cfg)), dictionaries)


register_architectures("difformer", DifformerConfig, ARCHITECTURES)
