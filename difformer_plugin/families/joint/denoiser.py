"""The Transformer over joint sequences: its positions attend to source and target alike."""

from typing import Any

import torch
from torch import nn

from difformer_plugin.families.joint.source import Joined, JointConditions, JointMemory
from difformer_plugin.networks.denoiser import Denoiser
from difformer_plugin.networks.layers import KeysValues, TransformerLayer
from difformer_plugin.networks.layout import Layout


class JointLayer(TransformerLayer):
    """A layer without cross-attention, which may attend to a prefix that others computed."""

    def __init__(self, cfg: Any):
        super().__init__(cfg, "decoder", cross_attention=False)

    def prefix(self, x: torch.Tensor) -> KeysValues:
        """The keys and values that states (B, S, C) before this layer offer to others."""
        norm = self.self_attn_layer_norm
        return self.self_attn.keys_values(norm(x) if self.normalize_before else x)

    def forward(
        self,
        x: torch.Tensor,
        layout: Layout,
        prefix: KeysValues | None = None,
        mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Transform the tokens (N, C) of a Layout.

        Args:
            prefix: keys and values (n, heads, S, C / heads) that candidates attend to as well.
            mask: bool (n, S + L), True where to attend; needed with a prefix.
        """
        mask = layout.attention_mask if prefix is None else mask
        x = self._block(
            x,
            self.self_attn_layer_norm,
            lambda h: self.self_attn(h, layout.candidates, mask, prefix=prefix),
        )
        return self._block(x, self.final_layer_norm, self._feed_forward)


class JointDenoiser(Denoiser):
    """Predicts the embeddings of joint sequences s t.

    As in DiffuSeq, positions count through both halves, and the time is added at each of them.
    Blind sources have time 0 and do not attend to the target, so that they are the same at every
    step. Plain sources have no time. Positions may restart in the target.

    Args:
        cfg: a JointDiffusionConfig; the others: see `Denoiser`.
    """

    def __init__(self, cfg: Any, *args: Any):
        super().__init__(cfg, *args)
        self.blind, self.plain = cfg.blind_source, cfg.plain_source
        self.noises_source = cfg.conditioning == "full"
        # whether anything depends on how the layers read a source on its own
        self.reads_alone = cfg.blind_source or not cfg.length_by_padding
        self.no_source = None  # what is read in place of an absent source's embeddings
        if cfg.source_dropout > 0:
            self.no_source = nn.Parameter(torch.zeros(cfg.latent_dim))
        # what marks the target's positions, where they begin anew
        self.target_half = None
        if cfg.restart_positions:
            self.target_half = nn.Parameter(torch.zeros(cfg.model_dim))

    @staticmethod
    def build_layer(cfg: Any) -> JointLayer:
        """A layer of the Transformer."""
        return JointLayer(cfg)

    @staticmethod
    def max_positions(cfg: Any) -> int:
        """The number of positions that tokens may have."""
        return cfg.max_source_positions + cfg.max_target_positions

    def source_latents(self, tokens: torch.Tensor, absent: torch.Tensor) -> torch.Tensor:
        """What is read in place of sources (B, S), of which some, bool (B,), are absent."""
        latents = self.embed_scale * self.embed_tokens(tokens) if self.plain else self.embed(tokens)
        if self.no_source is None:
            return latents
        return torch.where(absent[:, None, None], self.no_source.to(latents.dtype), latents)

    def encode(self, tokens: torch.Tensor, mask: torch.Tensor, absent: torch.Tensor) -> JointMemory:
        """Read sources on their own, without noise: at time 0, or plainly.

        Args:
            tokens: int64 (B, S), padded on the right; mask: bool (B, S), True at real tokens.
            absent: bool (B,).
        """
        layout, latents = Layout.dense(mask), self.source_latents(tokens, absent).flatten(0, 1)
        time = torch.zeros(1, device=mask.device)
        positions, inputs = self.embed_positions(mask.long() + self.pad).flatten(0, 1), []
        if self.plain:
            x = self._read_plainly(latents, positions)
        else:
            x = self.read(latents, time, layout, latents, positions)
        for layer in self.layers if self.reads_alone else ():
            inputs.append(x.view(*mask.shape, -1))
            x = layer(x, layout)
        states = self.layer_norm(x).view(*mask.shape, -1)
        return JointMemory(states, mask, tokens, absent, tuple(inputs) if self.blind else ())

    def conditions(self, memory: Any) -> Any:
        """What predictions read of the sources, from their JointMemory."""
        latents = self.source_latents(memory.tokens, memory.absent)
        layers = [layer.prefix(x) for layer, x in zip(self.layers, memory.layers)]
        precision = latents.dtype
        return JointConditions(memory.mask, latents, memory.absent, layers, precision)

    def denoise(
        self,
        z_t: torch.Tensor,
        t: torch.Tensor,
        layout: Layout,
        conditions: Any,
        z_0_hat: torch.Tensor,
        clean: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """What the network says of the N tokens of a Layout, (N, D); see `Denoiser.denoise`.

        Args:
            layout: of the targets, or of the joint sequences where sources are noised as well.
            conditions: JointConditions.
        """
        if self.noises_source:
            z_t, z_0_hat = self._hide_absent(z_t, layout, conditions, z_0_hat)
            positions = layout.candidates.pack(self._positions_of_both(layout, conditions))
            return self._transform(self.read(z_t, t, layout, z_0_hat, positions, clean), layout)
        joined = conditions.join(layout)
        positions = self._positions(joined)
        if self.blind or self.plain:
            own = layout.candidates.pack(positions[:, joined.source_width :])
            x = self.read(z_t, t, layout, z_0_hat, own, clean)
            if self.blind:
                return self._after_source(x, layout, conditions.layers, joined)
            source = self._read_plainly(joined.sources, positions[:, : joined.source_width])
            x = joined.layout.take(torch.cat([source, joined.targets.pad(x)], dim=1))
        else:
            if clean is not None:
                clean = joined.with_sources(clean[:, None].float())[:, 0].bool()
            z_t, z_0_hat = joined.with_latents(z_t), joined.with_latents(z_0_hat)
            x = self.read(z_t, t, joined.layout, z_0_hat, joined.layout.take(positions), clean)
        return joined.targets_of(self._transform(x, joined.layout))

    def _read_plainly(self, latents: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """What the first layer reads of sources, as an encoder reads them: (..., D) -> (..., C)."""
        return self.dropout(self.project_in_dim(latents) + positions)

    def _positions(self, joined: Joined) -> torch.Tensor:
        """The embeddings of the positions of sources and targets, (n, S + W, C)."""
        if self.target_half is None:
            return self.embed_positions(joined.mask.long() + self.pad)
        halves = joined.mask.split(
            [joined.source_width, joined.mask.shape[1] - joined.source_width], 1
        )
        source, target = (self.embed_positions(half.long() + self.pad) for half in halves)
        return torch.cat([source, target + self.target_half], dim=1)

    def _positions_of_both(self, layout: Layout, conditions: JointConditions) -> torch.Tensor:
        """The same of a layout of joint sequences, (n, L, C)."""
        mask = layout.mask
        if self.target_half is None:
            return self.embed_positions(mask.long() + self.pad)
        places = torch.arange(mask.shape[1], device=mask.device)
        lengths = conditions.mask.sum(1)[layout.owner_index][:, None]
        # Halves become rows of their own, and are put together again.
        in_source = places < lengths
        source, target = (
            self.embed_positions((mask & half).long() + self.pad)
            for half in (in_source, ~in_source)
        )
        return torch.where(in_source[..., None], source, target + self.target_half)

    def _transform(self, x: torch.Tensor, layout: Layout) -> torch.Tensor:
        """The network's output (M, D) for whole joint sequences (M, C), from its first layer on."""
        for layer in self.layers:
            x = layer(x, layout)
        return self.project_out_dim(self.layer_norm(x))

    def _after_source(
        self, x: torch.Tensor, layout: Layout, sources: list[KeysValues], joined: Joined
    ) -> torch.Tensor:
        """The network's output for targets (N, C), whose blind sources are computed already."""
        for layer, (keys, values) in zip(self.layers, sources):
            x = layer(x, layout, (keys[joined.owners], values[joined.owners]), joined.mask)
        return self.project_out_dim(self.layer_norm(x))

    def _hide_absent(
        self,
        z_t: torch.Tensor,
        layout: Layout,
        conditions: JointConditions,
        z_0_hat: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """z_t and the previous prediction of joint sequences, without the absent sources."""
        if self.no_source is None:
            return z_t, z_0_hat
        owners = layout.owner_index[layout.rows]
        in_source = layout.positions < conditions.mask.sum(1)[owners]
        hidden = (in_source & conditions.absent[owners])[:, None]
        nothing = self.no_source.to(z_t.dtype)
        return torch.where(hidden, nothing, z_t), torch.where(hidden, nothing, z_0_hat)


class SourceReader:
    """The encoder of joint models: the denoiser itself, which reads the source alone.

    It is no module of its own, so that checkpoints hold the shared weights once.
    """

    def __init__(self, denoiser: JointDenoiser):
        self.denoiser, self.pad = denoiser, denoiser.pad

    def __call__(self, src_tokens: torch.Tensor) -> JointMemory:
        """Read sources (B, S), padded on the left or on the right."""
        mask = src_tokens.ne(self.pad)
        order = (~mask).byte().argsort(dim=1, stable=True)  # padding last
        none = torch.zeros(len(mask), dtype=torch.bool, device=mask.device)
        return self.denoiser.encode(src_tokens.gather(1, order), mask.gather(1, order), none)
