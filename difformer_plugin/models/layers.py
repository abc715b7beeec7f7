"""Transformer layers over batch-first tensors, bidirectional, with an optional second attention."""

from typing import NamedTuple

import torch
from fairseq.utils import get_activation_fn
from torch import nn
from torch.nn import functional as F

ACTIVATION_MODULES = {"relu": nn.ReLU, "gelu": nn.GELU}


class Memory(NamedTuple):
    """What the denoiser attends to."""

    states: torch.Tensor  # (B, S, C), the encoder's output
    mask: torch.Tensor  # (B, S), True at real positions

    def select(self, rows):
        """The memory of the sentences `rows` (indices, possibly repeated, or a boolean mask)."""
        return Memory(self.states[rows], self.mask[rows])

    def lengths(self):
        """Source lengths (B,), with the symbols that frame a sentence."""
        return self.mask.sum(1)


class Attention(nn.Module):
    """Multi-head attention of x over memory (which is x itself in self-attention)."""

    def __init__(self, dim, heads, dropout):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (
            nn.Linear(dim, dim) for _ in range(4)
        )
        for projection in (self.q_proj, self.k_proj, self.v_proj):
            nn.init.xavier_uniform_(projection.weight, gain=2**-0.5)
        nn.init.xavier_uniform_(self.out_proj.weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, x, memory, mask):
        """x (B, L, C), memory (B, S, C), mask (B, S) True where to attend -> (B, L, C)."""
        q, k, v = (
            projection(source).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for projection, source in (
                (self.q_proj, x),
                (self.k_proj, memory),
                (self.v_proj, memory),
            )
        )
        dropout = self.dropout if self.training else 0.0
        out = F.scaled_dot_product_attention(q, k, v, mask[:, None, None], dropout_p=dropout)
        return self.out_proj(out.transpose(1, 2).flatten(2))


class TransformerLayer(nn.Module):
    """Self-attention, attention to a memory if there is one, feed-forward; each with a residual."""

    def __init__(self, cfg, side, cross_attention):
        super().__init__()
        dim = cfg.model_dim
        heads = getattr(cfg, f"{side}_attention_heads")
        ffn_dim = getattr(cfg, f"{side}_ffn_embed_dim")
        self.normalize_before = getattr(cfg, f"{side}_normalize_before")
        self.self_attn = Attention(dim, heads, cfg.attention_dropout)
        self.self_attn_layer_norm = nn.LayerNorm(dim)
        if cross_attention:
            self.encoder_attn = Attention(dim, heads, cfg.attention_dropout)
            self.encoder_attn_layer_norm = nn.LayerNorm(dim)
        self.fc1, self.fc2 = nn.Linear(dim, ffn_dim), nn.Linear(ffn_dim, dim)
        for linear in (self.fc1, self.fc2):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)
        self.final_layer_norm = nn.LayerNorm(dim)
        self.activation = get_activation_fn(cfg.activation_fn)
        self.dropout = nn.Dropout(cfg.dropout)
        self.activation_dropout = nn.Dropout(cfg.activation_dropout)

    def forward(self, x, mask, memory=None):
        """x (B, L, C), mask (B, L) True at real positions, memory: a Memory -> (B, L, C)."""
        x = self._block(x, self.self_attn_layer_norm, lambda h: self.self_attn(h, h, mask))
        if memory is not None:
            x = self._block(
                x,
                self.encoder_attn_layer_norm,
                lambda h: self.encoder_attn(h, memory.states, memory.mask),
            )
        return self._block(x, self.final_layer_norm, self._feed_forward)

    def _feed_forward(self, x):
        return self.fc2(self.activation_dropout(self.activation(self.fc1(x))))

    def _block(self, x, norm, function):
        if self.normalize_before:
            return x + self.dropout(function(norm(x)))
        return norm(x + self.dropout(function(x)))


def init_bert(module):
    """BERT's initialisation: weights from N(0, 0.02^2), biases and the padding embedding zero."""
    if isinstance(module, (nn.Linear, nn.Embedding)):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
    if isinstance(module, nn.Embedding) and module.padding_idx is not None:
        nn.init.zeros_(module.weight[module.padding_idx])


def feed_forward(in_dim, hidden_dim, out_dim, activation, dropout=0.0):
    """Linear, activation, linear, dropout."""
    return nn.Sequential(
        nn.Linear(in_dim, hidden_dim),
        ACTIVATION_MODULES[activation](),
        nn.Linear(hidden_dim, out_dim),
        nn.Dropout(dropout),
    )


def timestep_embedding(t, dim, max_period=10000):
    """Sinusoidal embedding of time steps, cosines first.

    Args:
        t: (B,), possibly fractional.
    Returns:
        float32 (B, dim).
    """
    half = dim // 2
    frequencies = max_period ** (-torch.arange(half, device=t.device, dtype=torch.float32) / half)
    angles = t[:, None].float() * frequencies
    return F.pad(torch.cat([angles.cos(), angles.sin()], dim=-1), (0, dim % 2))
