"""Joint diffusion, registered with fairseq: one sequence of source and target, one Transformer."""

from dataclasses import replace
from typing import Any

import torch
from fairseq.models import register_model
from torch.nn import functional as F

from difformer_plugin.checkpoints.counterparts import Counterpart
from difformer_plugin.data.word_marks import find_joins, find_mark
from difformer_plugin.diffusion.noise import sentence_keys, uniform
from difformer_plugin.errors import UserError
from difformer_plugin.families.architectures import register_architectures
from difformer_plugin.families.base import VALIDATION_SEED, rank_generator
from difformer_plugin.families.embeddings.base import (
    DiffusionOutput,
    EmbeddingDiffusionModel,
    Sequences,
)
from difformer_plugin.families.embeddings.config import time_scale
from difformer_plugin.families.joint import halves
from difformer_plugin.families.joint.config import (
    ARCHITECTURES,
    FULL,
    JointDiffusionConfig,
    check_config,
)
from difformer_plugin.families.joint.denoiser import JointDenoiser, SourceReader
from difformer_plugin.families.joint.lengths import build_lengths
from difformer_plugin.families.joint.objective import JointDiffusionLoss
from difformer_plugin.families.joint.words import Words
from difformer_plugin.networks.building import build_joint_denoiser
from difformer_plugin.networks.config import with_defaults


@register_model("joint_diffusion", dataclass=JointDiffusionConfig)
class JointDiffusion(EmbeddingDiffusionModel):
    """Gaussian diffusion of source and target in one sequence, s EOS BOS t.

    With partial conditioning only the target is noised (DiffuSeq; Gong et al., 2023). With full
    conditioning all is, and translation is infilling (Diffusion-LM; Li et al., 2022).
    """

    title = "a joint diffusion model"
    architectures = ARCHITECTURES
    criterion = "joint_diffusion_loss"
    objective = JointDiffusionLoss

    def __init__(self, cfg: Any, *networks_and_dictionaries: Any):
        super().__init__(cfg, *networks_and_dictionaries)
        self.noises_source = cfg.conditioning == FULL
        self.generates_words = cfg.generate_words
        # It would need the source's noise; words are likely after those before them alone; and
        # targets with the padding that was predicted.
        self.scores_targets = not (
            self.noises_source or self.generates_words or cfg.length_by_padding
        )
        self.ends_at_eos = cfg.length_by_padding
        self.dictionary = networks_and_dictionaries[-1][1]
        self.eos = self.dictionary.eos()
        self.words = Words(self.dictionary) if self.generates_words else None

    @classmethod
    def build_model(cls, cfg: Any, task: Any) -> "JointDiffusion":
        """Build a model for the task's dictionary.

        Raises:
            UserError: source and target have different dictionaries.
        """
        cfg = with_defaults(cfg, JointDiffusionConfig)
        check_config(cfg)
        source, target = task.source_dictionary, task.target_dictionary
        if source != target:
            raise UserError(
                "a joint diffusion model needs one dictionary for both languages, but those of "
                f"source ({len(source)} types) and target ({len(target)} types) differ: run "
                "fairseq-preprocess with --joined-dictionary"
            )
        denoiser = build_joint_denoiser(cfg, target, time_scale(cfg), JointDenoiser)
        return cls(cfg, SourceReader(denoiser), denoiser, build_lengths(cfg), (source, target))

    def teacher_layers(self, part: str) -> Counterpart:
        """What one half of the layers is taken from; see `halves`."""
        return halves.counterpart(self.cfg, part)

    @property
    def frozen_updates(self) -> int:
        """None: there is no encoder."""
        return 0

    def side_sizes(self, side: str) -> dict[str, Any]:
        """The sizes of either half of the layers."""
        sizes = super().side_sizes("decoder")
        return sizes | {"layers": max(1, sizes["layers"] // 2)}

    # Training

    def prepare_training(self, task: Any) -> None:
        """Choose F, where it is left to us, and find out where words end.

        Raises:
            UserError: the words of such subwords are unknown.
        """
        super().prepare_training(task)
        if self.words is not None:
            mark = find_mark(task.cfg, self.dictionary)
            self.words.set_joins(find_joins(self.dictionary, mark))

    def forward(
        self, src_tokens: torch.Tensor, target: torch.Tensor, **unused: Any
    ) -> DiffusionOutput:
        """One step of training; with --generate-words of one word of each target, at random.

        In evaluation mode the word is a function of the target. See
        `EmbeddingDiffusionModel.forward`.
        """
        if self.words is None:
            return super().forward(src_tokens, target)
        if self.training:
            generator = rank_generator(target.device)
            u = torch.rand(len(target), generator=generator, device=target.device)
        else:
            u = uniform(sentence_keys(target, self.denoiser.pad, VALIDATION_SEED), 1)[:, 0]
        source, word, places = self.words.choose(src_tokens, target, u)
        output = super().forward(source, word)
        return output._replace(places=places.flatten()[output.places])

    def build_no_source(self, cfg: Any) -> None:
        """None: the denoiser has an embedding for absent sources."""

    def without_sources(self, memory: Any, absent: torch.Tensor) -> Any:
        """The memory of the same sentences as if some sources, bool (B,), were absent."""
        if not self.cfg.blind_source:  # what is read in their place is chosen at each step
            return replace(memory, absent=absent)
        return self.denoiser.encode(memory.tokens, memory.mask, absent)

    def without_source(self, memory: Any) -> Any:
        """The memory of the same sentences as if all sources were absent."""
        return self.without_sources(memory, torch.ones_like(memory.absent))

    def sequences(self, memory: Any, target: torch.Tensor) -> Sequences:
        """Targets, or with full conditioning sources and targets, (B, L), padded on the right."""
        targets, pad = super().sequences(memory, target), self.denoiser.pad
        if self.ends_at_eos:
            targets = self._padded(targets, memory)
        if not self.noises_source:
            return targets
        source = memory.tokens.masked_fill(~memory.mask, pad)
        tokens = torch.cat([source, targets.tokens], dim=1)
        # Nothing but the targets has a place: the source's tokens take that of BOS.
        begin = targets.places[:, :1].expand(-1, source.shape[1])
        places = torch.cat([begin, targets.places], dim=1)
        order = tokens.eq(pad).byte().argsort(dim=1, stable=True)  # padding last
        padding = targets.padding
        if padding is not None:
            padding = F.pad(padding, (source.shape[1], 0)).gather(1, order)
        return Sequences(tokens.gather(1, order), places.gather(1, order), padding)

    def _padded(self, targets: Sequences, memory: Any) -> Sequences:
        """Targets with the padding that is to be generated, whose places are those of BOS."""
        pad, own = self.denoiser.pad, targets.tokens
        tokens = self.length_predictor.pad(own, memory, pad, self.eos)
        lengths = own.ne(pad).sum(1, keepdim=True)
        columns = torch.arange(tokens.shape[1], device=own.device)
        padding = tokens.ne(pad) & (columns >= lengths)
        begin = own.ne(pad).byte().argmax(1, keepdim=True)  # where BOS is
        places = targets.places.gather(1, begin) + torch.where(padding, 0, columns)
        return Sequences(tokens, places, padding)

    def leading_tokens(self, memory: Any) -> torch.Tensor | None:
        """With full conditioning the source, which decoding fills the target in after."""
        return memory.tokens.masked_fill(~memory.mask, -1) if self.noises_source else None


register_architectures("joint_diffusion", JointDiffusionConfig, ARCHITECTURES)
