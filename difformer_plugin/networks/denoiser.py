"""The target side: embeddings z_0, the denoiser that predicts them from z_t, and their rounding."""

import math

import torch
from fairseq.modules import PositionalEmbedding
from torch import nn

from difformer_plugin.networks.dropout import Dropout
from difformer_plugin.networks.layers import (
    Conditions,
    TransformerLayer,
    feed_forward,
    timestep_embedding,
)
from difformer_plugin.networks.layout import Layout

ROUNDING_CHUNK = 1024  # tokens whose logits over the vocabulary are held at a time


class Denoiser(nn.Module):
    """z_0-hat(z_t, x, t), with the embedding step before and the rounding step after it.

    Args:
        cfg: NetworkConfig.
        time_scale: what times are multiplied by before they are embedded.
    """

    def __init__(self, cfg, time_scale, embed_tokens, project_in, project_out, output_projection):
        super().__init__()
        self.embed_tokens, self.project_in_dim = embed_tokens, project_in
        self.project_out_dim, self.output_projection = project_out, output_projection
        self.pad = embed_tokens.padding_idx
        self.model_dim = cfg.model_dim
        self.embed_scale = 1.0 if cfg.no_scale_embedding else math.sqrt(cfg.latent_dim)
        self.time_scale = time_scale
        self.embed_positions = PositionalEmbedding(
            cfg.max_target_positions, cfg.model_dim, self.pad, learned=cfg.decoder_learned_pos
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
        self.norm_hidden = nn.Identity() if cfg.embed_norm_before_proj else norm
        self.self_cond, self.self_cond_before_proj = cfg.self_cond, cfg.self_cond_before_proj
        if cfg.self_cond:
            dim = cfg.latent_dim if cfg.self_cond_before_proj else cfg.model_dim
            self.self_cond_proj = feed_forward(2 * dim, dim, dim, cfg.activation_fn, cfg.dropout)
        self.dropout = Dropout(cfg.dropout)
        self.layers = nn.ModuleList(
            TransformerLayer(cfg, "decoder", cross_attention=True)
            for _ in range(cfg.decoder_layers)
        )
        self.layer_norm = (
            nn.LayerNorm(cfg.model_dim) if cfg.decoder_normalize_before else nn.Identity()
        )

    def embed(self, tokens):
        """z_0 = e(y): tokens (B, L) -> (B, L, D)."""
        return self.norm_z_0(self.embed_scale * self.embed_tokens(tokens))

    def table(self):
        """The embeddings z_0 of all types but padding, (V - 1, D)."""
        weight = self.embed_tokens.weight
        types = torch.arange(len(weight), device=weight.device)
        return self.embed(types[types != self.pad])

    def conditions(self, memory):
        """What the layers read of a Memory: the keys and values of its states in each of them."""
        return Conditions(
            [layer.encoder_attn.keys_values(memory.states) for layer in self.layers], memory.mask
        )

    def forward(self, z_t, t, mask, memory, z_0_hat):
        """Predict z_0 of padded targets, one for each source.

        Args:
            z_t: (B, L, D).
            t: (B,), training time steps, possibly fractional.
            mask: (B, L), True at real positions.
            memory: the encoder's Memory.
            z_0_hat: (B, L, D), the previous prediction (zeros where there is none); read only with
                self-conditioning.
        Returns:
            (B, L, D).
        """
        tokens, previous = z_t.flatten(0, 1), z_0_hat.flatten(0, 1)
        predicted = self.denoise(tokens, t, Layout.dense(mask), self.conditions(memory), previous)
        return predicted.view(z_t.shape)

    def denoise(self, z_t, t, layout, conditions, z_0_hat):
        """Predict z_0 of the tokens of a Layout, as `forward` does.

        Args:
            z_t: (N, D).
            t: (n,), of each candidate, or (1,), of all.
            conditions: of the sentences' sources.
            z_0_hat: (N, D).
        Returns:
            (N, D).
        """
        hidden = self._project(z_t, z_0_hat)
        time = timestep_embedding(t * self.time_scale, self.model_dim).type_as(hidden)
        hidden = hidden + layout.spread(self.embed_time(time))
        positions = self.embed_positions(layout.mask.long() + self.pad)
        hidden = hidden + layout.candidates.pack(positions)
        hidden = self.dropout(self.norm_hidden(hidden))
        for layer, keys_values in zip(self.layers, conditions.layers):
            hidden = layer(hidden, layout, keys_values, conditions.mask)
        return self.project_out_dim(self.layer_norm(hidden))

    def _project(self, z_t, z_0_hat):
        """Latents to the model dimension, joined with the self-condition before or after."""
        if not self.self_cond:
            return self.project_in_dim(z_t)
        if self.self_cond_before_proj:
            return self.project_in_dim(self.self_cond_proj(torch.cat([z_t, z_0_hat], dim=-1)))
        both = torch.cat([self.project_in_dim(z_t), self.project_in_dim(z_0_hat)], dim=-1)
        return self.self_cond_proj(both)

    def round(self, z):
        """The rounding step: the likeliest tokens (N,) of z (N, D), and their log-probabilities.

        Logits are float32 where the table is, whatever z is.

        Returns:
            int64 (N,) and float32 (N,).
        """
        best = [
            self.output_projection(chunk.type_as(self.output_projection.weight))
            .float()
            .log_softmax(-1)
            .max(-1)
            for chunk in z.split(ROUNDING_CHUNK)
        ]
        return torch.cat([b.indices for b in best]), torch.cat([b.values for b in best])

    def likeliest(self, z):
        """The likeliest tokens alone, int64 (N,), in the precision of the table."""
        chunks = z.type_as(self.output_projection.weight).split(ROUNDING_CHUNK)
        return torch.cat([self.output_projection(chunk).argmax(-1) for chunk in chunks])
