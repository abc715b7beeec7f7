"""Discrete diffusion with a given length, registered with fairseq: D3PM, MDLM and SEDD."""

from collections.abc import Iterable
from functools import partial
from importlib import import_module
from typing import Any

import torch
from fairseq.models import register_model

from difformer_plugin.diffusion.categorical.draft import Draft
from difformer_plugin.diffusion.categorical.samplers.base import (
    DISTRIBUTION,
    RATIOS,
    Logits,
    TokenSampler,
    iter_logits,
)
from difformer_plugin.diffusion.categorical.times import decoding_times, training_times
from difformer_plugin.diffusion.sampler import SAMPLERS
from difformer_plugin.families.architectures import register_architectures
from difformer_plugin.families.base import DiffusionModel
from difformer_plugin.families.tokens.base import DiscreteOutput, TokenDiffusionModel
from difformer_plugin.families.tokens.config import (
    ARCHITECTURES,
    OBJECTIVES,
    DiscreteDiffusionConfig,
    check_config,
    num_steps_or_none,
    unread,
)
from difformer_plugin.families.tokens.data_process import KINDS
from difformer_plugin.families.tokens.denoiser import TokenDenoiser
from difformer_plugin.families.tokens.objective import DiscreteDiffusionLoss
from difformer_plugin.networks.building import build_networks
from difformer_plugin.networks.config import with_defaults
from difformer_plugin.networks.layers import Memory
from difformer_plugin.networks.layout import Layout

TIME_SCALE = 1000.0  # of times in [0, 1], before they are embedded


@register_model("discrete_diffusion", dataclass=DiscreteDiffusionConfig)
class DiscreteDiffusion(TokenDiffusionModel):
    """Tokens are corrupted and predicted back; the length is predicted beforehand."""

    title = "a discrete diffusion model"  # of any kind; a model also says which
    objective = DiscreteDiffusionLoss

    @classmethod
    def build_model(cls, cfg: Any, task: Any) -> DiffusionModel:
        """Build a model for the task's dictionaries; some objectives have a model of their own."""
        cfg = with_defaults(cfg, DiscreteDiffusionConfig)
        check_config(cfg)
        if own_model := OBJECTIVES[cfg.objective].model:
            module, name = own_model.split(":")
            return getattr(import_module(module), name).of_discrete_config(cfg, task)
        dictionaries = task.source_dictionary, task.target_dictionary
        denoiser = partial(TokenDenoiser, has_mask=KINDS[cfg.process].has_mask)
        networks = build_networks(cfg, *dictionaries, TIME_SCALE, denoiser)
        return cls(cfg, *networks, dictionaries)

    def __init__(self, cfg: Any, *args: Any):
        super().__init__(cfg, *args)
        self.title = f"{self.title} (--process {cfg.process} --objective {cfg.objective})"
        self.diffusion_steps = num_steps_or_none(cfg)
        self.reads_logits_as = OBJECTIVES[cfg.objective].reads_logits_as
        self.scores_targets = self.reads_logits_as == DISTRIBUTION

    def unread_options(self) -> Iterable[tuple[str, str]]:
        """Those of other processes and of discrete time."""
        return unread(self.cfg)

    def forward(
        self,
        src_tokens: torch.Tensor,
        target: torch.Tensor,
        part: tuple[int, int] = (0, 1),
        memory: Memory | None = None,
        **unused: Any,
    ) -> DiscreteOutput:
        """One step of training: corrupt the target at a random time and predict it back.

        Args:
            src_tokens: (B, S); target: (B, L), padded on the right.
            part: see `draw`.
            memory: of these sources, if they are encoded already.
        """
        memory = self.encoder(src_tokens) if memory is None else memory
        u, noise, conditioned = self.draw(src_tokens, target.shape[1], part)
        times = training_times(u, self.diffusion_steps)
        first_type, mask = self.vocabulary.first_type, target.ne(self.denoiser.pad)
        corruptible = target >= first_type
        layout = self.layout(mask)
        tokens, numbers, here = (layout.take(x) for x in (target, noise, corruptible))
        here = here.nonzero()[:, 0]
        s, t = (x[layout.rows[here]] for x in times)
        x_0 = tokens[here] - first_type
        x_t = self.process.corrupt(x_0, t, numbers[here])
        z_t = self.denoiser.embed(tokens.index_copy(0, here, x_t + first_type))
        predicted = self.denoise_conditioned(z_t, times[1].float(), layout, memory, conditioned)
        return DiscreteOutput(
            predicted.index_select(0, here),
            *(x_0, x_t, s, t, corruptible.sum(1)),
            self.length_predictor(memory),
            self.length_predictor.classes(mask.sum(1), memory),
            None,
        )

    def samplers(self) -> dict[str, type[TokenSampler]]:
        """Those that read logits as this model's, and that do without a mask where it has none."""
        return {
            s.name: s
            for s in SAMPLERS
            if issubclass(s, TokenSampler)
            and s.reads_logits_as == self.reads_logits_as
            and (self.chain.kind.has_mask or not s.needs_mask)
        }

    def build_sampler(
        self, kind: type[TokenSampler], options: Any, settings: dict[str, Any]
    ) -> TokenSampler:
        """A sampler of K steps, whose ends are times of training."""
        grid = decoding_times(
            self.diffusion_steps, options.decoding_steps, options.decoding_timesteps
        )
        return kind(self.process, grid, self.vocabulary, self.logits, **settings)

    def filled(self, z: Draft, prediction: torch.Tensor, logits: Logits) -> Draft:
        """The draft with the likeliest types; unchanged where logits are ratios without a mask.

        Ratios say only where a token goes next.
        """
        if self.reads_logits_as == RATIOS and not self.chain.kind.has_mask:
            return z
        return super().filled(z, prediction, logits)

    def corrupt(
        self, tokens: torch.Tensor, time: float, noise: torch.Tensor, layout: Layout
    ) -> Draft:
        """x_t of tokens (N,); the frame stays."""
        here = (tokens >= self.vocabulary.first_type).nonzero()[:, 0]
        t = torch.full((len(here),), time, dtype=torch.float64, device=tokens.device)
        x_t = self.process.corrupt(tokens[here] - self.vocabulary.first_type, t, noise[here])
        x_t = tokens.index_copy(0, here, x_t + self.vocabulary.first_type)
        return Draft(x_t, torch.zeros(len(x_t), device=x_t.device))

    def log_probs(self, tokens: torch.Tensor, z: Draft, prediction: torch.Tensor) -> torch.Tensor:
        """Log-probabilities (N,) of tokens; 0 for the frame, and for what a mask does not hide."""
        found, first_type = z.log_probs.clone(), self.vocabulary.first_type
        masks_only = self.chain.kind.has_mask
        for here, own in iter_logits(z, prediction, self.vocabulary, self.logits, masks_only):
            types = tokens[here, None] - first_type
            found[here] = own.log_softmax(-1).gather(1, types)[:, 0]
        return found


register_architectures("discrete_diffusion", DiscreteDiffusionConfig, ARCHITECTURES)
