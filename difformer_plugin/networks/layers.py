"""Transformer layers over packed or padded tokens, with optional cross-attention to a source."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from fairseq.utils import get_activation_fn
from torch import nn
from torch.nn import functional as F

from difformer_plugin.networks.dropout import Dropout
from difformer_plugin.networks.layout import Layout, Rows

ACTIVATION_MODULES = {"relu": nn.ReLU, "gelu": nn.GELU}

KeysValues = tuple[torch.Tensor, torch.Tensor]  # (B, heads, S, C / heads) each


class Memory(NamedTuple):
    """Encoded sources, to which the denoiser attends."""

    states: torch.Tensor  # (B, S, C), the encoder's output
    mask: torch.Tensor  # bool (B, S), True at real tokens

    def select(self, rows: torch.Tensor) -> "Memory":
        """Select sentences by their indices, which may repeat, or by a boolean mask (B,)."""
        return Memory(self.states[rows], self.mask[rows])

    def to(self, dtype: torch.dtype) -> "Memory":
        """Convert the states to another precision."""
        return Memory(self.states.to(dtype), self.mask)

    def widened(self, width: int) -> "Memory":
        """Pad on the right to a width of at least S."""
        padding = width - self.mask.shape[1]
        return Memory(F.pad(self.states, (0, 0, 0, padding)), F.pad(self.mask, (0, padding)))

    def lengths(self) -> torch.Tensor:
        """Source lengths including BOS and EOS, int64 (B,)."""
        return self.mask.sum(1)


class Conditions(NamedTuple):
    """Keys and values of the sources for every layer of a denoiser.

    They are computed once per batch and read at every decoding step.
    """

    layers: list[KeysValues]
    mask: torch.Tensor  # bool (B, S), True at real tokens
    precision: torch.dtype  # of the denoiser that reads them; see `networks.precision`

    def in_precision(self, precision: torch.dtype) -> "Conditions":
        """The same for a denoiser in another precision."""
        return self._replace(precision=precision)

    def select(self, rows: torch.Tensor) -> "Conditions":
        """Select sentences by their indices, which may repeat, or by a boolean mask (B,)."""
        layers = [(k[rows], v[rows]) for k, v in self.layers]
        return Conditions(layers, self.mask[rows], self.precision)

    def tensors(self) -> list[torch.Tensor]:
        """All that depends on the sentences."""
        return [self.mask, *(x for pair in self.layers for x in pair)]

    def clone(self) -> "Conditions":
        """A copy with tensors of its own."""
        layers = [(k.clone(), v.clone()) for k, v in self.layers]
        return Conditions(layers, self.mask.clone(), self.precision)


class Attention(nn.Module):
    """Multi-head attention (Vaswani et al., 2017) over rows of tokens.

    Args:
        dim: C, the dimension of the states.
        heads: the number of heads, which divides C.
        dropout: the dropout probability of attention weights.
    """

    def __init__(self, dim: int, heads: int, dropout: float):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (
            nn.Linear(dim, dim) for _ in range(4)
        )
        for projection in (self.q_proj, self.k_proj, self.v_proj):
            nn.init.xavier_uniform_(projection.weight, gain=2**-0.5)
        nn.init.xavier_uniform_(self.out_proj.weight)
        nn.init.zeros_(self.out_proj.bias)

    def keys_values(self, states: torch.Tensor) -> KeysValues:
        """Project states (B, S, C) to keys and values, (B, heads, S, C / heads) each."""
        return self._heads(self.k_proj(states)), self._heads(self.v_proj(states))

    def forward(
        self,
        x: torch.Tensor,
        rows: Rows,
        mask: torch.Tensor | None,
        keys_values: KeysValues | None = None,
        prefix: KeysValues | None = None,
    ) -> torch.Tensor:
        """Attend from each token to the tokens of its row, or to the source of its row.

        Args:
            x: the tokens, (N, C).
            rows: groups of tokens that attend to the same keys.
            mask: bool (rows, S), True where to attend; None means everywhere.
            keys_values: keys and values of the sources, one per row; None for self-attention.
            prefix: more keys and values, before those of self-attention; `mask` counts them.
        Returns:
            (N, C).
        """
        q = self._heads(rows.pad(self.q_proj(x)))
        k, v = keys_values or (self._heads(rows.pad(p(x))) for p in (self.k_proj, self.v_proj))
        if prefix is not None:
            k, v = (torch.cat(pair, dim=2) for pair in zip(prefix, (k, v)))
        out = self.attend(q, k, v, None if mask is None else mask[:, None, None])
        return self.out_proj(rows.pack(out.transpose(1, 2).flatten(2)))

    def attend(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        mask: torch.Tensor | None,
    ) -> torch.Tensor:
        """Scaled dot-product attention of queries, keys and values, (rows, heads, L, C / heads)."""
        dropout = self.dropout if self.training else 0.0
        if not (q.requires_grad and q.device.type == "cpu"):
            return F.scaled_dot_product_attention(q, k, v, mask, dropout)
        # On a CPU, the gradient in half precision takes several times as long as in float32.
        with torch.autocast("cpu", enabled=False):
            out = F.scaled_dot_product_attention(q.float(), k.float(), v.float(), mask, dropout)
        return out.to(q.dtype)

    def _heads(self, x: torch.Tensor) -> torch.Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class TransformerLayer(nn.Module):
    """Self-attention, optional cross-attention and a feed-forward network, each with a residual.

    Args:
        cfg: a NetworkConfig.
        side: "encoder" or "decoder", whose options of `cfg` apply.
        cross_attention: whether the layer attends to a source.
    """

    def __init__(self, cfg: Any, side: str, cross_attention: bool):
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

    def forward(
        self,
        x: torch.Tensor,
        layout: Layout,
        keys_values: KeysValues | None = None,
        memory_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Transform the tokens (N, C) of a Layout.

        Args:
            x: the tokens, (N, C).
            layout: where the tokens of each candidate and sentence are.
            keys_values: this layer's keys and values of the sources; None without cross-attention.
            memory_mask: bool (B, S), True at real tokens of the sources.
        Returns:
            (N, C).
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

    def _feed_forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(self.activation_dropout(self.activation(self.fc1(x))))

    def _block(
        self,
        x: torch.Tensor,
        norm: nn.Module,
        function: Callable[[torch.Tensor], torch.Tensor],
    ) -> torch.Tensor:
        if self.normalize_before:
            return self.dropout(function(norm(x)), x)
        return norm(self.dropout(function(x), x))


def init_bert(module: nn.Module) -> None:
    """Initialise a linear map or an embedding table as BERT does (Devlin et al., 2019).

    Weights are drawn from N(0, 0.02^2); biases and the embedding of padding are zero.
    """
    if isinstance(module, (nn.Linear, nn.Embedding)):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
    if isinstance(module, nn.Embedding) and module.padding_idx is not None:
        nn.init.zeros_(module.weight[module.padding_idx])


def feed_forward(
    in_dim: int, hidden_dim: int, out_dim: int, activation: str, dropout: float = 0.0
) -> nn.Sequential:
    """A feed-forward network: linear, activation ("relu" or "gelu"), linear, dropout."""
    return nn.Sequential(
        nn.Linear(in_dim, hidden_dim),
        ACTIVATION_MODULES[activation](),
        nn.Linear(hidden_dim, out_dim),
        Dropout(dropout),
    )


def timestep_embedding(t: torch.Tensor, dim: int, max_period: int = 10000) -> torch.Tensor:
    """Sinusoidal embedding of times, cosines first (Ho et al., 2020).

    Args:
        t: (B,), times, possibly fractional.
        dim: the dimension of the embedding.
        max_period: the lowest frequency is about 1 / max_period.
    Returns:
        float32 (B, dim); the last entry is zero if `dim` is odd.
    """
    half = dim // 2
    frequencies = max_period ** (-torch.arange(half, device=t.device, dtype=torch.float32) / half)
    angles = t[:, None].float() * frequencies
    return F.pad(torch.cat([angles.cos(), angles.sin()], dim=-1), (0, dim % 2))
