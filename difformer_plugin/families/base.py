"""What models of all families share: networks, self-conditioning, guidance and precision."""

import logging
from collections.abc import Iterable
from typing import Any, ClassVar

import torch
from torch import nn

from difformer_plugin.checkpoints.counterparts import Counterpart, counterpart
from difformer_plugin.checkpoints.warm_start import parse_parts
from difformer_plugin.families.architectures import add_switches
from difformer_plugin.families.contract import FAMILIES
from difformer_plugin.families.loading import LoadableModel
from difformer_plugin.networks.layers import Conditions, Memory
from difformer_plugin.networks.layout import Layout
from difformer_plugin.networks.precision import converted, state_type
from difformer_plugin.options import flag

logger = logging.getLogger(__name__)
SELF_COND_PROBABILITY = 0.5
VALIDATION_SEED = 0


class DiffusionModel(LoadableModel):
    """An encoder, a denoiser that predicts the uncorrupted target, and a length predictor.

    A subclass is a family: `families.contract.Family` says what it has to add.
    """

    title: str
    published_options: ClassVar[str] = ""
    architectures: ClassVar[dict[str, dict[str, Any]]] = {}
    criterion: str
    objective: type
    reads: ClassVar[frozenset[str]] = frozenset()
    diffuses_embeddings: ClassVar[bool] = False
    scores_targets: bool = False
    noises_source: bool = False
    ends_at_eos: bool = False
    generates_words: bool = False
    initialised: tuple[str, ...] = ()  # parts that --init-from-teacher took from a teacher
    time_unit: float = 1.0  # what times in [0, 1] are multiplied by before the denoiser reads them

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        if "title" in vars(cls):  # not what several families share
            FAMILIES.append(cls)

    def __init__(
        self,
        cfg: Any,
        encoder: nn.Module,
        denoiser: nn.Module,
        length_predictor: nn.Module | None,
        dictionaries: tuple[Any, Any],
    ):
        super().__init__(cfg, dictionaries)
        self.encoder, self.denoiser = encoder, denoiser
        self.length_predictor = length_predictor
        # what is read in place of an absent source's states
        self.no_source = self.build_no_source(cfg) if cfg.source_dropout > 0 else None

    @classmethod
    def add_args(cls, parser: Any) -> None:
        """Add the options of the command line: those of the configuration, and --no-FLAG."""
        super().add_args(parser)
        add_switches(parser, cls.architectures)

    @property
    def predicts_length(self) -> bool:
        """Whether the length is predicted before anything is drawn."""
        return self.length_predictor is not None and not self.generates_words

    @property
    def tries_lengths(self) -> bool:
        """Whether lengths can be chosen; otherwise the model finds them by what it draws."""
        return self.predicts_length and not self.ends_at_eos

    @property
    def has_seen_absent_sources(self) -> bool:
        """Whether it was trained with absent sources."""
        return self.cfg.source_dropout > 0

    @property
    def teacher_parts(self) -> tuple[str, ...]:
        """The parts of the weights that --init-from-teacher takes from a teacher."""
        return parse_parts(self.cfg.init_parts)

    def teacher_layers(self, part: str) -> Counterpart:
        """What the layers of such a part, "encoder" or "decoder", are taken from."""
        return counterpart(self.cfg, part)

    @property
    def frozen_updates(self) -> int:
        """For how many first updates the encoder that a teacher gave does not change."""
        return self.cfg.freeze_encoder_updates

    def side_sizes(self, side: str) -> dict[str, Any]:
        """Sizes of the "encoder" or the "decoder", as options of fairseq's Transformers name them.

        The bench gives them to the Transformers that it compares this model with.
        """
        names = ("layers", "ffn_embed_dim", "attention_heads", "normalize_before")
        return {name: self.cfg[f"{side}_{name}"] for name in names}

    def build_no_source(self, cfg: Any) -> nn.Parameter | None:
        """What is learned in place of an absent source's states, if it is the model's own."""
        return nn.Parameter(torch.zeros(cfg.model_dim))

    def prepare_training(self, task: Any) -> None:
        """Choose what is left to be chosen before the first update; the task has the data."""
        for name, reason in self.unread_options():
            logger.warning("%s has no effect %s: leave it out", flag(name), reason)
        if self.has_seen_absent_sources:
            self.learn_absent_sources()

    def unread_options(self) -> Iterable[tuple[str, str]]:
        """Options of the configuration that were given but are not read: (name, why not)."""
        return ()

    def begin_training(self) -> None:
        """Called before each epoch; before the first, a checkpoint's weights are loaded."""

    def measures(self) -> dict[str, float]:
        """What validation logs of the model itself."""
        return {}

    # Training

    def layout(self, mask: torch.Tensor, copies: int = 1) -> Layout:
        """The Layout of training targets that are padded on the right.

        Args:
            mask: bool (B copies, L), of the targets, the copies of each one after another.
        """
        return Layout.packed(mask, copies)

    def denoise_conditioned(
        self,
        z_t: torch.Tensor,
        t: torch.Tensor,
        layout: Layout,
        memory: Memory,
        conditioned: torch.Tensor | None,
        clean: torch.Tensor | None = None,
        earlier: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """The network's output in training (N, D), some of it self-conditioned.

        `to_prediction` makes the prediction of it.

        Args:
            z_t: (N, D), of the tokens of the layout, which has equally many candidates of each of
                the B sentences, n in all.
            t: (n,).
            conditioned: bool (B,), sentences whose predictions read earlier ones.
            clean: see `Denoiser.denoise`. What an earlier prediction says of these tokens is z_0.
            earlier: what the earlier predictions are made from instead of z_t and t.
        """
        memory = self.drop_sources(memory)
        conditions = self.denoiser.conditions(memory)
        previous = torch.zeros_like(z_t)
        # Indices, not masks: on a GPU, each use of a mask would wait for its number of rows.
        sentences = conditioned.nonzero()[:, 0] if self.cfg.self_cond else []
        if len(sentences):
            copies = len(layout.mask) // len(conditioned)
            is_chosen = conditioned.repeat_interleave(copies)
            candidates = is_chosen.nonzero()[:, 0]
            tokens = is_chosen[layout.rows].nonzero()[:, 0]
            z_s, s = earlier or (z_t, t)
            with torch.no_grad():
                chosen = z_s[tokens], s[candidates], self.layout(layout.mask[candidates], copies)
                known = None if clean is None else clean[tokens]
                output = self.denoise(
                    self.denoiser,
                    *chosen,
                    self.select_conditions(conditions, memory, sentences),
                    torch.zeros_like(chosen[0]),
                    known,
                )
                first = self.to_prediction(self.denoiser, output, *chosen)
                if known is not None:
                    first = torch.where(known[:, None], z_t[tokens], first)
                previous[tokens] = first.type_as(previous)  # halves by autocast
            # Autocast would keep the weights that it cast without gradients for the next pass.
            torch.clear_autocast_cache()
        return self.denoise(self.denoiser, z_t, t, layout, conditions, previous, clean)

    def denoise(
        self,
        denoiser: nn.Module,
        z_t: torch.Tensor,
        t: torch.Tensor,
        layout: Layout,
        conditions: Conditions,
        previous: torch.Tensor,
        clean: torch.Tensor | None,
    ) -> torch.Tensor:
        """The output (N, D) of a denoiser of this model; see `Denoiser.denoise`."""
        return denoiser.denoise(z_t, t, layout, conditions, previous, clean)

    def to_prediction(
        self,
        denoiser: nn.Module,
        output: torch.Tensor,
        z_t: torch.Tensor,
        t: torch.Tensor,
        layout: Layout,
    ) -> torch.Tensor:
        """The prediction (N, D) that the network's output stands for: by default the output."""
        return output

    def drop_sources(self, memory: Memory) -> Memory:
        """The memory of training, in which some sources are absent (--source-dropout).

        In evaluation mode none is.
        """
        if not (self.has_seen_absent_sources and self.training):
            return memory
        generator = rank_generator(memory.mask.device)
        u = torch.rand(len(memory.mask), device=memory.mask.device, generator=generator)
        return self.without_sources(memory, u < self.cfg.source_dropout)

    def without_sources(self, memory: Memory, absent: torch.Tensor) -> Memory:
        """The memory of the same sentences as if some sources, bool (B,), were absent."""
        none = self.without_source(memory).states
        return Memory(torch.where(absent[:, None, None], none, memory.states), memory.mask)

    def without_source(self, memory: Memory) -> Memory:
        """The memory of the same sentences with one learned state in place of each position's."""
        states = self.no_source.to(memory.states.dtype).expand_as(memory.states)
        return Memory(states, memory.mask)

    def select_conditions(
        self, conditions: Conditions, memory: Memory, sentences: torch.Tensor
    ) -> Conditions:
        """The conditions of some sentences, by index, from those of all and their memory."""
        return conditions.select(sentences)

    # Decoding

    def conditions(self, memory: Memory, dtype: torch.dtype | None = None) -> Conditions:
        """What predictions read of the sources, in a precision (None: the model's own)."""
        dtype = dtype or memory.states.dtype
        conditions = self.denoiser_in(dtype).conditions(memory.to(state_type(dtype)))
        return conditions.in_precision(dtype)

    def denoiser_in(self, dtype: torch.dtype) -> nn.Module:
        """The denoiser in a precision; a copy is made once and kept until weights change."""
        if dtype == self.denoiser.output_projection.weight.dtype:
            return self.denoiser
        if dtype not in self.derived:
            self.derived[dtype] = converted(self.denoiser, dtype)
        return self.derived[dtype]

    def predict(
        self,
        z: Any,
        time: float | torch.Tensor,
        layout: Layout,
        conditions: Conditions,
        previous: torch.Tensor | None,
        absent: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The prediction for each token, float32; see `Family.predict`."""
        denoiser = self.denoiser_in(conditions.precision)
        if not torch.is_tensor(time):
            time = torch.full((1,), time, device=layout.device, dtype=torch.float64)
        t: Any = time * self.time_unit
        z_t = self.embed_state(z, t, denoiser)
        clean = self.clean_tokens(z)
        if previous is None:
            previous = torch.zeros_like(z_t)
        elif clean is not None:
            known = clean if absent is None else clean & ~absent
            previous = torch.where(known[:, None], z_t, previous.to(z_t.dtype))
        own = z_t, t.float(), layout
        output = self.denoise(denoiser, *own, conditions, previous.to(z_t.dtype), clean)
        return self.decoded(output, self.to_prediction(denoiser, output, *own)).float()

    def decoded(self, output: torch.Tensor, prediction: torch.Tensor) -> torch.Tensor:
        """The prediction as decoding needs it, which may keep some of the network's output."""
        return prediction

    def embed_state(self, z: Any, t: torch.Tensor, denoiser: nn.Module) -> torch.Tensor:
        """A state as the denoiser reads it, (N, D) in the denoiser's precision.

        Args:
            t: float64 (1,), the time in the model's unit.
        """
        raise NotImplementedError

    def clean_tokens(self, z: Any) -> torch.Tensor | None:
        """Which tokens of a state are decided, bool (N,), for a denoiser that cannot tell."""
        return None

    def leading_tokens(self, memory: Memory) -> torch.Tensor | None:
        """None: the source is read by way of `conditions`."""
        return None

    def certain(
        self, prediction: torch.Tensor, tokens: torch.Tensor, given: torch.Tensor
    ) -> torch.Tensor:
        """A prediction that is sure of given tokens: as it is, where the state has them."""
        return prediction

    def refine(self, prediction: torch.Tensor, options: Any, calls: int) -> torch.Tensor:
        """A prediction (N, D) as the options of decoding want it altered: as it is."""
        return prediction

    def corrupt(
        self, tokens: torch.Tensor, time: float, noise: torch.Tensor, layout: Layout
    ) -> Any:
        """The state at a time of given targets; see `Family.corrupt`."""
        raise NotImplementedError

    def log_probs(self, tokens: torch.Tensor, z: Any, prediction: torch.Tensor) -> torch.Tensor:
        """Log-probabilities (N,) of given tokens under a prediction; see `Family.log_probs`."""
        raise NotImplementedError


def rank_generator(device: torch.device) -> torch.Generator:
    """A random generator of this process's own; fairseq seeds all ranks of a training alike."""
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    rank = torch.distributed.get_rank() if distributed else 0
    return torch.Generator(device).manual_seed(int(torch.randint(2**62, ())) + rank)
