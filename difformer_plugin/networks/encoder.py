"""The source side: Transformer encoder and length predictor."""

import math
from typing import Any

import torch
from fairseq.modules import PositionalEmbedding
from torch import nn
from torch.nn import functional as F

from difformer_plugin.networks.dropout import Dropout
from difformer_plugin.networks.layers import Memory, TransformerLayer
from difformer_plugin.networks.layout import Layout

LENGTH_CLASSES = 256
OFFSET_CLASS = LENGTH_CLASSES // 2  # the class of a target that is as long as its source


class Encoder(nn.Module):
    """Transformer encoder (Vaswani et al., 2017) with embeddings of the latent dimension.

    Args:
        cfg: a NetworkConfig.
        embed_tokens: the source embeddings, (V, D).
        project_in_dim: maps embeddings (..., D) to the model dimension.
    """

    def __init__(self, cfg: Any, embed_tokens: nn.Embedding, project_in_dim: nn.Module):
        super().__init__()
        self.embed_tokens, self.project_in_dim = embed_tokens, project_in_dim
        self.pad = embed_tokens.padding_idx
        self.embed_scale = 1.0 if cfg.no_scale_embedding else math.sqrt(cfg.latent_dim)
        self.embed_positions = PositionalEmbedding(
            cfg.max_source_positions, cfg.model_dim, self.pad, learned=cfg.encoder_learned_pos
        )
        self.layernorm_embedding = (
            nn.LayerNorm(cfg.model_dim) if cfg.layernorm_embedding else nn.Identity()
        )
        self.dropout = Dropout(cfg.dropout)
        self.layers = nn.ModuleList(
            TransformerLayer(cfg, "encoder", cross_attention=False)
            for _ in range(cfg.encoder_layers)
        )
        self.layer_norm = (
            nn.LayerNorm(cfg.model_dim) if cfg.encoder_normalize_before else nn.Identity()
        )

    def forward(self, src_tokens: torch.Tensor) -> Memory:
        """Encode sources.

        Args:
            src_tokens: int64 (B, S), padded on the left or on the right.
        """
        mask = src_tokens.ne(self.pad)
        x = self.project_in_dim(self.embed_scale * self.embed_tokens(src_tokens))
        x = self.layernorm_embedding(x + self.embed_positions(src_tokens))
        layout, shape = Layout.dense(mask), x.shape
        x = self.dropout(x).flatten(0, 1)
        for layer in self.layers:
            x = layer(x, layout)
        return Memory(self.layer_norm(x).view(shape), mask)


class LengthPredictor(nn.Module):
    """p(target length | source): a softmax over 256 classes of the mean encoder state (Sec. 3.3).

    A class is a target length or, with --pred-length-offset, the difference of target and source
    length plus 128. Lengths include BOS and EOS.
    """

    def __init__(self, cfg: Any):
        super().__init__()
        self.embed_length = nn.Embedding(LENGTH_CLASSES, cfg.model_dim)
        nn.init.normal_(self.embed_length.weight, std=cfg.model_dim**-0.5)
        self.stop_gradient, self.as_offset = cfg.sg_length_pred, cfg.pred_length_offset

    def forward(self, memory: Memory) -> torch.Tensor:
        """Logits of the length classes, (B, 256)."""
        real = memory.mask[..., None].type_as(memory.states)
        mean = ((memory.states / real.sum(1, keepdim=True)) * real).sum(1)
        if self.stop_gradient:
            mean = mean.detach()
        return F.linear(mean, self.embed_length.weight)

    def classes(self, lengths: torch.Tensor, memory: Memory) -> torch.Tensor:
        """The classes of target lengths, int64 (B,); a length without a class takes the nearest."""
        if self.as_offset:
            lengths = lengths - memory.lengths() + OFFSET_CLASS
        return lengths.clamp(0, LENGTH_CLASSES - 1)

    def lengths(self, memory: Memory) -> torch.Tensor:
        """The target length that each class stands for, int64 (B, 256); it may be below 1."""
        classes = torch.arange(LENGTH_CLASSES, device=memory.mask.device)
        if self.as_offset:
            return classes - OFFSET_CLASS + memory.lengths()[:, None]
        return classes.expand(len(memory.mask), -1)
