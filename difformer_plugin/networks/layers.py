"""Transformer layers over the tokens of a layout, with an optional attention to a memory."""

from typing import NamedTuple

import torch
from fairseq.utils import get_activation_fn
from torch import nn
from torch.nn import functional as F

from difformer_plugin.networks.dropout import Dropout

ACTIVATION_MODULES = {"relu": nn.ReLU, "gelu": nn.GELU}


class Memory(NamedTuple):
    """What the denoiser attends to."""

    states: torch.Tensor  # (B, S, C), the encoder's output
    mask: torch.Tensor  # (B, S), True at real positions

    def select(self, rows):
        """The memory of the sentences `rows` (indices, possibly repeated, or a boolean mask)."""
        return Memory(self.states[rows], self.mask[rows])

    def to(self, dtype):
        """The same in another precision."""
        return Memory(self.states.to(dtype), self.mask)

    def widened(self, width):
        """The same with more padding on the right."""
        more = width - self.mask.shape[1]
        return Memory(F.pad(self.states, (0, 0, 0, more)), F.pad(self.mask, (0, more)))

    def lengths(self):
        """Source lengths (B,), with the symbols that frame a sentence."""
        return self.mask.sum(1)


class Conditions(NamedTuple):
    """What the layers of a denoiser read of the sources: computed once, read at each step."""

    layers: list  # for each layer the keys and values of the source, (B, heads, S, C / heads) each
    mask: torch.Tensor  # (B, S), True at real positions

    @property
    def dtype(self):
        """The precision of keys and values."""
        return self.layers[0][0].dtype

    def select(self, rows):
        """The conditions of the sentences `rows`, as of `Memory.select`."""
        return Conditions([(k[rows], v[rows]) for k, v in self.layers], self.mask[rows])


class Attention(nn.Module):
    """Multi-head attention over rows of tokens."""

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

    def keys_values(self, memory):
        """What memory (B, S, C) is to queries: two tensors (B, heads, S, C / heads)."""
        return self._heads(self.k_proj(memory)), self._heads(self.v_proj(memory))

    def forward(self, x, rows, mask, keys_values=None):
        """Each token looks at its own row, or at what `keys_values` made of a memory.

        Args:
            x: (N, C).
            rows: Rows that see the same keys.
            mask: (rows, S), True where to attend, or None for everywhere.
            keys_values: of the memory; None in self-attention.
        Returns:
            (N, C).
        """
        q = self._heads(rows.pad(self.q_proj(x)))
        k, v = keys_values or (self._heads(rows.pad(p(x))) for p in (self.k_proj, self.v_proj))
        out = self.attend(q, k, v, None if mask is None else mask[:, None, None])
        return self.out_proj(rows.pack(out.transpose(1, 2).flatten(2)))

    def attend(self, q, k, v, mask):
        dropout = self.dropout if self.training else 0.0
        if not (q.requires_grad and q.device.type == "cpu"):
            return F.scaled_dot_product_attention(q, k, v, mask, dropout)
        # On CPUs its gradient takes several times as long in half precision as in float32.
        with torch.autocast("cpu", enabled=False):
            out = F.scaled_dot_product_attention(q.float(), k.float(), v.float(), mask, dropout)
        return out.to(q.dtype)

    def _heads(self, x):
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


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
        self.dropout = Dropout(cfg.dropout)
        self.activation_dropout = Dropout(cfg.activation_dropout)

    def forward(self, x, layout, keys_values=None, memory_mask=None):
        """Tokens (N, C) of a Layout -> (N, C).

        Args:
            keys_values: of the sentences' memories in this layer, if it attends to any.
            memory_mask: (B, S), True at real positions of these memories.
        """
        x = self._block(
            x,
            self.self_attn_layer_norm,
            lambda h: self.self_attn(h, layout.candidates, layout.attention_mask),
        )
        if keys_values is not None:
            x = self._block(
                x,
                self.encoder_attn_layer_norm,
                lambda h: self.encoder_attn(h, layout.sentences, memory_mask, keys_values),
            )
        return self._block(x, self.final_layer_norm, self._feed_forward)

    def _feed_forward(self, x):
        return self.fc2(self.activation_dropout(self.activation(self.fc1(x))))

    def _block(self, x, norm, function):
        if self.normalize_before:
            return self.dropout(function(norm(x)), x)
        return norm(self.dropout(function(x), x))


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
        Dropout(dropout),
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
