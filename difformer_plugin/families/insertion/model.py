"""Diffusion with a growing length, registered with fairseq (Flex-MDLM)."""

from collections.abc import Iterable
from typing import Any

import torch
from fairseq.models import register_model

from difformer_plugin.diffusion.categorical.times import decoding_times
from difformer_plugin.diffusion.insertion.process import (
    ClosedUp,
    closed_up,
    corrupt,
    log_missing,
)
from difformer_plugin.diffusion.insertion.sampler import Growing
from difformer_plugin.families.architectures import register_architectures
from difformer_plugin.families.insertion.config import (
    ARCHITECTURES,
    InsertionDiffusionConfig,
    check_config,
)
from difformer_plugin.families.insertion.denoiser import InsertionDenoiser
from difformer_plugin.families.insertion.objective import (
    InsertionDiffusionLoss,
    LossUnderDiscreteName,
)
from difformer_plugin.families.tokens.base import DiscreteOutput, Gaps, TokenDiffusionModel
from difformer_plugin.families.tokens.config import ABSORBING, unread
from difformer_plugin.families.tokens.data_process import DataDependentProcess
from difformer_plugin.families.tokens.model import TIME_SCALE
from difformer_plugin.networks.building import build_networks
from difformer_plugin.networks.config import with_defaults
from difformer_plugin.networks.layers import Memory
from difformer_plugin.networks.layout import Layout


@register_model("insertion_diffusion", dataclass=InsertionDiffusionConfig)
class InsertionDiffusion(TokenDiffusionModel):
    """Tokens go missing as well as masked; decoding starts from BOS and EOS, and the target grows.

    Its time is continuous, its process absorbing.
    """

    title = "a model whose lengths grow"
    criterion = "insertion_diffusion_loss"
    objective = InsertionDiffusionLoss
    diffusion_steps = None
    unread_of_discrete: tuple[tuple[str, str], ...] = ()  # with --arch discrete_diffusion

    def unread_options(self) -> Iterable[tuple[str, str]]:
        """Those of the length predictor, which it does not have, and of other processes."""
        names = ("pred_length_offset", "sg_length_pred")
        found = [(name, "where the target grows") for name in names if getattr(self.cfg, name)]
        return [*found, *self.unread_of_discrete]

    @classmethod
    def build_model(cls, cfg: Any, task: Any) -> "InsertionDiffusion":
        """Build a model for the task's dictionaries."""
        cfg = with_defaults(cfg, InsertionDiffusionConfig)
        check_config(cfg)
        dictionaries = task.source_dictionary, task.target_dictionary
        encoder, denoiser, _ = build_networks(cfg, *dictionaries, TIME_SCALE, InsertionDenoiser)
        return cls(cfg, encoder, denoiser, None, dictionaries)

    @classmethod
    def of_discrete_config(cls, cfg: Any, task: Any) -> "InsertionDiffusion":
        """The model of `--arch discrete_diffusion --objective flexible`, with its criterion."""
        model = cls.build_model(cfg, task)
        model.criterion, model.objective = TokenDiffusionModel.criterion, LossUnderDiscreteName
        model.unread_of_discrete = tuple(unread(cfg))
        return model

    @staticmethod
    def build_process(cfg: Any, dictionary: Any, first_type: int) -> DataDependentProcess:
        """The absorbing process; its schedule serves insertion as well."""
        return DataDependentProcess(
            ABSORBING, cfg.noise_schedule, False, cfg, dictionary, first_type
        )

    def forward(
        self,
        src_tokens: torch.Tensor,
        target: torch.Tensor,
        part: tuple[int, int] = (0, 1),
        memory: Memory | None = None,
        **unused: Any,
    ) -> DiscreteOutput:
        """One step of training: shorten and mask the target, and predict it back.

        Args:
            src_tokens: (B, S); target: (B, L), padded on the right.
            part: see `draw`.
            memory: of these sources, if they are encoded already.
        """
        memory = self.encoder(src_tokens) if memory is None else memory
        u, noise, _ = self.draw(src_tokens, target.shape[1], part)
        t, corruptible = 1 - u.double(), target >= self.vocabulary.first_type
        counts = corruptible.sum(1)
        rows = torch.arange(len(target), device=target.device).repeat_interleave(counts)
        schedule = self.process.schedule  # type: ignore[attr-defined]
        states = corrupt(schedule, t[rows], noise[corruptible][:, 0].double())
        left = closed_up(target[corruptible], counts, states, self.vocabulary.mask)
        layout, tokens = self._framed(left)
        predicted = self.denoise_conditioned(
            self.denoiser.embed(tokens), t.float(), layout, memory, None
        )
        masks = (tokens == self.vocabulary.mask).nonzero()[:, 0]
        gaps = (tokens != self.vocabulary.eos).nonzero()[:, 0]
        x_0, t_masks = left.targets - self.vocabulary.first_type, t[layout.rows[masks]]
        t_gaps = t[layout.rows[gaps]]
        outputs = self.denoiser.missing(predicted[gaps], predicted[gaps + 1])
        expected = log_missing(schedule, t_gaps, outputs)
        return DiscreteOutput(
            predicted.index_select(0, masks),
            *(x_0, torch.full_like(x_0, self.vocabulary.types), t_masks, t_masks, counts),
            *(None, None, Gaps(expected, left.missing, t_gaps)),
        )

    def _framed(self, left: ClosedUp) -> tuple[Layout, torch.Tensor]:
        """The Layout and tokens (N,) of shortened targets with BOS and EOS around each."""
        lengths = left.lengths + 2
        layout = Layout(lengths.tolist(), list(range(len(lengths))), lengths.device)
        ends = lengths.cumsum(0)
        tokens = left.tokens.new_empty(layout.candidates.total)
        inner = torch.ones_like(tokens, dtype=torch.bool)
        inner[ends - 1] = inner[ends - lengths] = False
        tokens[inner] = left.tokens
        tokens[ends - 1], tokens[ends - lengths] = self.vocabulary.eos, self.vocabulary.bos
        return layout, tokens

    def samplers(self) -> dict[str, type[Growing]]:
        """The one there is."""
        return {Growing.name: Growing}

    def build_sampler(self, kind: type[Growing], options: Any, settings: dict[str, Any]) -> Growing:
        """A sampler of K steps, and one that fills what the others have inserted."""
        return kind(
            self.process.schedule,  # type: ignore[attr-defined]
            decoding_times(None, options.decoding_steps, options.decoding_timesteps),
            self.vocabulary,
            self.logits,
            self.denoiser.missing,
            self.max_positions()[1],
            **settings,
        )


register_architectures("insertion_diffusion", InsertionDiffusionConfig, ARCHITECTURES)
