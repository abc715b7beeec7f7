"""Difformer, registered with fairseq: Gaussian diffusion of token embeddings."""

from typing import Any

import torch
from fairseq.models import register_model

from difformer_plugin.families.architectures import register_architectures
from difformer_plugin.families.embeddings.base import DiffusionOutput, EmbeddingDiffusionModel
from difformer_plugin.families.embeddings.config import (
    ARCHITECTURES,
    DifformerConfig,
    check_config,
)
from difformer_plugin.families.embeddings.objective import DifformerLoss
from difformer_plugin.networks.building import build_networks
from difformer_plugin.networks.config import with_defaults


@register_model("difformer", dataclass=DifformerConfig)
class Difformer(EmbeddingDiffusionModel):
    """Gaussian diffusion on learned embeddings with an encoder-decoder Transformer (Sec. 3.3)."""

    title = "a Difformer"
    published_options = """
        --noise-schedule sqrt --rescaling-factor 4 --self-cond --rescale-timesteps --embed-norm
        --embed-norm-affine
    """  # Table 21
    architectures = ARCHITECTURES
    criterion = "difformer_loss"
    objective = DifformerLoss

    @classmethod
    def build_model(cls, cfg: Any, task: Any) -> "Difformer":
        """Build a model for the task's dictionaries."""
        cfg = with_defaults(cfg, DifformerConfig)
        check_config(cfg)
        dictionaries = task.source_dictionary, task.target_dictionary
        time_scale = 1000.0 / cfg.diffusion_steps if cfg.rescale_timesteps else 1.0
        return cls(cfg, *build_networks(cfg, *dictionaries, time_scale), dictionaries)

    def forward(
        self, src_tokens: torch.Tensor, target: torch.Tensor, **unused: Any
    ) -> DiffusionOutput:
        """One step of training: corrupt the target at a random time and predict it back.

        In evaluation mode, time and noise are functions of the source sentence, so that validation
        losses are comparable between epochs and do not depend on the batches.

        Args:
            src_tokens: (B, S); target: (B, L), padded on the right.
        """
        copies = self.cfg.noises_per_sentence if self.training else 1
        memory, lengths = self.encoder(src_tokens), target.ne(self.denoiser.pad).sum(1)
        target = target.repeat_interleave(copies, 0)
        mask = target.ne(self.denoiser.pad)
        layout, z_0 = self.layout(mask, copies), self.denoiser.embed(target)
        corrupted = self._corrupt(src_tokens, z_0, mask)
        clean = None if corrupted.clean is None else layout.take(corrupted.clean)
        z_0_hat = self.denoise_conditioned(
            self._read(corrupted.z_t, corrupted.t, layout, clean),
            corrupted.t,
            layout,
            memory,
            corrupted.conditioned,
            clean,
            corrupted.earlier
            and (self._read(*corrupted.earlier, layout, clean), corrupted.earlier[1]),
        )
        predicted = layout.take(mask if corrupted.clean is None else mask & ~corrupted.clean)
        places = torch.arange(len(src_tokens) * target.shape[1], device=target.device)
        places = places.view(len(src_tokens), -1).repeat_interleave(copies, 0)
        return DiffusionOutput(
            layout.take(z_0)[predicted],
            z_0_hat[predicted],
            layout.take(target)[predicted],
            layout.take(places)[predicted],
            self.length_predictor(memory),
            self.length_predictor.classes(lengths, memory),
        )


register_architectures("difformer", DifformerConfig, ARCHITECTURES)
