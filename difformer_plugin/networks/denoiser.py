"""The target side: embedding step, denoiser and rounding step."""

import math
from typing import Any

import torch
from fairseq.modules import PositionalEmbedding
from torch import nn
from torch.utils.checkpoint import checkpoint

from difformer_plugin.networks.dropout import Dropout
from difformer_plugin.networks.layers import (
    Conditions,
    Memory,
    TransformerLayer,
    feed_forward,
    timestep_embedding,
)
from difformer_plugin.networks.layout import Layout

ROUNDING_CHUNK = 1024  # tokens whose logits over the vocabulary are in memory at a time


class Denoiser(nn.Module):
    """Predicts z_0 from z_t, the source x and the time t: z_0-hat(z_t, x, t) (Sec. 3.3).

    It also has the embedding step that maps tokens to z_0, and the rounding step that maps
    embeddings back to tokens.

    Args:
        cfg: a NetworkConfig.
        time_scale: times are multiplied by this number before they are embedded.
        embed_tokens: the target embeddings, (V, D).
        project_in: maps latents (..., D) to the model dimension C.
        project_out: maps states (..., C) to the latent dimension D.
        output_projection: maps latents (..., D) to logits (..., V), for rounding.
    """

    def __init__(
        self,
        cfg: Any,
        time_scale: float,
        embed_tokens: nn.Embedding,
        project_in: nn.Module,
        project_out: nn.Module,
        output_projection: nn.Linear,
    ):
        super().__init__()
        self.embed_tokens, self.project_in_dim = embed_tokens, project_in
        self.project_out_dim, self.output_projection = project_out, output_projection
        self.pad = embed_tokens.padding_idx
        self.model_dim = cfg.model_dim
        self.embed_scale = 1.0 if cfg.no_scale_embedding else math.sqrt(cfg.latent_dim)
        self.time_scale = time_scale
        self.embed_positions = PositionalEmbedding(
            self.max_positions(cfg), cfg.model_dim, self.pad, learned=cfg.decoder_learned_pos
        )
        self.embed_time = feed_forward(
            cfg.model_dim, cfg.model_dim * 4, cfg.model_dim, cfg.activation_fn
        )
        norm_dim = cfg.latent_dim if cfg.embed_norm_before_proj else cfg.model_dim
        norm = (
            nn.LayerNorm(norm_dim, elementwise_affine=cfg.embed_norm_affine)
            if cfg.embed_norm
            else nn.Identity()
        )
        self.norm_z_0 = norm if cfg.embed_norm_before_proj else nn.Identity()
        if cfg.normalize_embeddings:
            self.norm_z_0 = nn.RMSNorm(cfg.latent_dim, eps=1e-8, elementwise_affine=False)
        self.norm_hidden = nn.Identity() if cfg.embed_norm_before_proj else norm
        self.self_cond, self.self_cond_before_proj = cfg.self_cond, cfg.self_cond_before_proj
        if cfg.self_cond:
            dim = cfg.latent_dim if cfg.self_cond_before_proj else cfg.model_dim
            self.self_cond_proj = feed_forward(2 * dim, dim, dim, cfg.activation_fn, cfg.dropout)
        self.dropout = Dropout(cfg.dropout)
        self.layers = nn.ModuleList(self.build_layer(cfg) for _ in range(cfg.decoder_layers))
        self.layer_norm = (
            nn.LayerNorm(cfg.model_dim) if cfg.decoder_normalize_before else nn.Identity()
        )

    @staticmethod
    def build_layer(cfg: Any) -> TransformerLayer:
        """A layer of the Transformer."""
        return TransformerLayer(cfg, "decoder", cross_attention=True)

    @staticmethod
    def max_positions(cfg: Any) -> int:
        """The number of positions that tokens may have."""
        return cfg.max_target_positions

    def embed(self, tokens: torch.Tensor) -> torch.Tensor:
        """The embedding step, z_0 = e(y): tokens (...) -> (..., D)."""
        return self.norm_z_0(self.embed_scale * self.embed_tokens(tokens))

    def table(self) -> torch.Tensor:
        """The embeddings z_0 of all types except padding, (V - 1, D)."""
        weight = self.embed_tokens.weight
        types = torch.arange(len(weight), device=weight.device)
        return self.embed(types[types != self.pad])

    def conditions(self, memory: Memory) -> Conditions:
        """Project the encoder's states to the keys and values of every layer's cross-attention."""
        layers = [layer.encoder_attn.keys_values(memory.states) for layer in self.layers]
        return Conditions(layers, memory.mask, memory.states.dtype)

    def forward(
        self,
        z_t: torch.Tensor,
        t: torch.Tensor,
        mask: torch.Tensor,
        memory: Memory,
        z_0_hat: torch.Tensor,
    ) -> torch.Tensor:
        """Predict z_0 for a padded batch with one target per source.

        Args:
            z_t: (B, L, D).
            t: (B,), times in the model's unit, possibly fractional.
            mask: bool (B, L), True at real tokens.
            memory: the encoder's output.
            z_0_hat: (B, L, D), the previous prediction, or zeros if there is none. Only
                self-conditioning reads it.
        Returns:
            the prediction of z_0, (B, L, D).
        """
        tokens, previous = z_t.flatten(0, 1), z_0_hat.flatten(0, 1)
        predicted = self.denoise(tokens, t, Layout.dense(mask), self.conditions(memory), previous)
        return predicted.view(z_t.shape)

    def denoise(
        self,
        z_t: torch.Tensor,
        t: torch.Tensor,
        layout: Layout,
        conditions: Conditions,
        z_0_hat: torch.Tensor,
        clean: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Predict z_0 for the N tokens of a Layout with n candidates.

        Args:
            z_t: (N, D).
            t: (n,), a time for each candidate, or (1,), one time for all.
            layout: where the tokens of each candidate are.
            conditions: keys and values of the sources.
            z_0_hat: (N, D), the previous prediction, as in `forward`.
            clean: bool (N,), tokens whose z_t is z_0 itself: their time is 0. None if none is.
        Returns:
            the prediction of z_0, (N, D).
        """
        positions = self.embed_positions(layout.mask.long() + self.pad)
        positions = layout.candidates.pack(positions)
        hidden = self.read(z_t, t, layout, z_0_hat, positions, clean)
        for layer, keys_values in zip(self.layers, conditions.layers):
            hidden = layer(hidden, layout, keys_values, conditions.mask)
        return self.project_out_dim(self.layer_norm(hidden))

    def read(
        self,
        z_t: torch.Tensor,
        t: torch.Tensor,
        layout: Layout,
        z_0_hat: torch.Tensor,
        positions: torch.Tensor,
        clean: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """What the first layer reads of the N tokens of a Layout, (N, C); see `denoise`.

        Args:
            positions: (N, C), the embeddings of the tokens' positions.
        """
        hidden = self._project(z_t, z_0_hat)
        time = layout.spread(self._time_states(t, hidden))
        if clean is not None:
            time = torch.where(
                clean[:, None], self._time_states(torch.zeros_like(t[:1]), hidden), time
            )
        return self.dropout(self.norm_hidden(hidden + time + positions))

    def _time_states(self, t: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """Times (n,) as they are added to hidden states, (n, C)."""
        return self.embed_time(
            timestep_embedding(t * self.time_scale, self.model_dim).type_as(like)
        )

    def _project(self, z_t: torch.Tensor, z_0_hat: torch.Tensor) -> torch.Tensor:
        """Map latents to the model dimension, with the previous prediction if self-conditioned."""
        if not self.self_cond:
            return self.project_in_dim(z_t)
        if self.self_cond_before_proj:
            return self.project_in_dim(self.self_cond_proj(torch.cat([z_t, z_0_hat], dim=-1)))
        both = torch.cat([self.project_in_dim(z_t), self.project_in_dim(z_0_hat)], dim=-1)
        return self.self_cond_proj(both)

    def round(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The rounding step: the most likely token of each latent.

        Logits are computed in the precision of the output projection, whatever that of z.

        Args:
            z: (N, D).
        Returns:
            tokens, int64 (N,), and their log-probabilities, float32 (N,).
        """
        best = [
            self.output_projection(chunk.type_as(self.output_projection.weight))
            .float()
            .log_softmax(-1)
            .max(-1)
            for chunk in z.split(ROUNDING_CHUNK)
        ]
        return torch.cat([b.indices for b in best]), torch.cat([b.values for b in best])

    def log_probs(self, tokens: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        """Log-probabilities in the rounding of given tokens (N,) from latents (N, D): (N,)."""
        parts = [
            self.output_projection(latents.type_as(self.output_projection.weight))
            .float()
            .log_softmax(-1)
            .gather(1, own[:, None])[:, 0]
            for own, latents in zip(tokens.split(ROUNDING_CHUNK), z.split(ROUNDING_CHUNK))
        ]
        return torch.cat(parts)

    def expected(self, z: torch.Tensor) -> torch.Tensor:
        """The mean of the embeddings of all types, weighted by their probabilities in the rounding.

        It is the z_0-hat of score interpolation (Dieleman et al., 2022), and the alternate kernel
        of the thesis (Sec. 3.2.4).

        Args:
            z: (N, D).
        Returns:
            (N, D), in the precision of the output projection.
        """
        weight = self.output_projection.weight
        types = self.embed(torch.arange(len(weight), device=weight.device))

        def mean(part: torch.Tensor) -> torch.Tensor:
            logits = self.output_projection(part.type_as(weight))
            return logits.float().softmax(-1).type_as(types) @ types

        parts = z.split(ROUNDING_CHUNK)
        if not torch.is_grad_enabled():
            return torch.cat([mean(part) for part in parts])
        # The softmax of a part is computed anew for its gradient: all would fill the memory.
        return torch.cat([checkpoint(mean, part, use_reentrant=False) for part in parts])
