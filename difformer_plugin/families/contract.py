"""What decoding, criteria, the task, the bench and tuning may ask of a model of any family.

A new family inherits `families.base.DiffusionModel`, which implements what families have in common,
and adds the rest. Nobody outside a family asks which family a model is of: what matters is here.

Shapes: B sentences, n candidates, N tokens of all candidates together, D latent dimensions.
"""

from typing import Any, ClassVar, Protocol, TypeGuard, runtime_checkable

import torch

from difformer_plugin.checkpoints.counterparts import Counterpart
from difformer_plugin.diffusion.sampler import Sampler
from difformer_plugin.networks.layers import Conditions, Memory
from difformer_plugin.networks.layout import Layout


class LengthPredictor(Protocol):
    """p(target length | source)."""

    def __call__(self, memory: Memory) -> torch.Tensor:
        """Logits of the length classes, (B, C)."""

    def lengths(self, memory: Memory) -> torch.Tensor:
        """The target length that each class stands for, int64 (B, C); may be below 1."""


@runtime_checkable
class Family(Protocol):
    """A diffusion model as everything outside its folder knows it.

    Attributes:
        title: what messages call such a model.
        published_options: options of fairseq-train, beyond the defaults, of the published models
            of this family, which the bench gives to models with random weights.
        criterion: name of the criterion that it is trained with, and `objective` its class.
        reads: names of the options of decoding that `build_sampler` or `refine` reads, beyond
            the settings of the sampler itself. An option that nobody reads is refused.
        predicts_length: whether `length_predictor` fixes the length before anything is drawn;
            otherwise the sampler grows the target.
        tries_lengths: whether that length is the target's, so that several can be tried or one be
            forced; otherwise the model finds the length by what it draws.
        diffuses_embeddings: whether its state is a latent, which Gaussian noise corrupts.
        has_seen_absent_sources: whether it was trained with absent sources, for `without_source`.
        scores_targets: whether it can corrupt a given target and tell how likely its tokens are,
            by `corrupt` and `log_probs`.
        noises_source: whether sources are noised as well, so that decoding fills targets in after
            them (see `leading_tokens`).
        ends_at_eos: whether a target ends at its first EOS, and what follows is padding.
        generates_words: whether targets are drawn word by word: `encoder` reads the source and the
            words so far, from which `length_predictor` tells the length of the next word.
        noise_dim: random numbers that a token needs in a step.
        diffusion_steps: T, or None where training has continuous time.
        teacher_parts: parts of the weights that --init-from-teacher takes.
        frozen_updates: for how many first updates the encoder that a teacher gave does not change.
        initialised: parts of the weights that --init-from-teacher took from a teacher.
        encoder: source tokens (B, S) -> Memory.
        denoiser: the network behind `predict`.
        cfg: its configuration, a NetworkConfig or more.
        derived: what decoding has made of the weights; cleared when they change.
    """

    title: str
    published_options: ClassVar[str]
    criterion: str
    objective: type
    reads: ClassVar[frozenset[str]]
    diffuses_embeddings: ClassVar[bool]
    predicts_length: bool
    tries_lengths: bool
    scores_targets: bool
    noises_source: bool
    ends_at_eos: bool
    generates_words: bool
    has_seen_absent_sources: bool
    noise_dim: int
    diffusion_steps: int | None
    teacher_parts: tuple[str, ...]
    frozen_updates: int
    initialised: tuple[str, ...]
    cfg: Any
    derived: dict[Any, Any]
    encoder: Any
    denoiser: Any
    length_predictor: LengthPredictor | None

    def prepare_training(self, task: Any) -> None:
        """Choose what is left to be chosen before the first update; the task has the data."""

    def begin_training(self) -> None:
        """Called before each epoch; before the first, a checkpoint's weights are loaded."""

    def measures(self) -> dict[str, float]:
        """What validation logs of the model itself."""

    def teacher_layers(self, part: str) -> Counterpart:
        """What the layers of the part "encoder" or "decoder" are taken from in a teacher."""

    def side_sizes(self, side: str) -> dict[str, Any]:
        """Sizes of a Transformer that is as large as the model; side: "encoder" or "decoder"."""

    def samplers(self) -> dict[str, type[Sampler]]:
        """The samplers that it can be decoded with, by name; its default comes first."""

    def build_sampler(self, kind: type[Sampler], options: Any, settings: dict) -> Sampler:
        """A sampler of K = options.decoding_steps steps at the times options.decoding_timesteps.

        Args:
            kind: one of `samplers`; settings: its own options by field name.
        """

    def conditions(self, memory: Memory, dtype: torch.dtype | None = None) -> Conditions:
        """What predictions read of the sources, in a precision (None: the model's own)."""

    def without_source(self, memory: Memory) -> Memory:
        """The memory of the same sentences as if their sources were absent."""

    def predict(
        self,
        z: Any,
        time: float | torch.Tensor,
        layout: Layout,
        conditions: Conditions,
        previous: torch.Tensor | None,
        absent: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The prediction for each token, float32 (N, D).

        Of embeddings it can be (N, 2D): z_0-hat and what is rounded (`gaussian.rounding`).
        Logits and what is rounded are linear in the output of the network.

        Args:
            z: the state of the N tokens.
            time: in [0, 1]; a number, or float64 (1,).
            previous: the prediction of the step before, for self-conditioning; None at first.
            absent: bool (1,), whether there is none after all, and `previous` is 0: for recordings,
                which cannot tell by a None.
        """

    def leading_tokens(self, memory: Memory) -> torch.Tensor | None:
        """What candidates begin with that is no part of the target; None for nothing.

        Returns:
            int64 (B, S), the same for all candidates of a sentence, padded on the right by -1.
        """

    def clean_state(self, tokens: torch.Tensor) -> Any:
        """The state of tokens (N,) at time 0."""

    def certain(
        self, prediction: torch.Tensor, tokens: torch.Tensor, given: torch.Tensor
    ) -> torch.Tensor:
        """A prediction, shaped as by `predict`, that is sure of given tokens.

        Args:
            tokens: int64 (N,); given: bool (N,), which of them are given.
        """

    def refine(self, prediction: torch.Tensor, options: Any, calls: int) -> torch.Tensor:
        """A prediction, shaped as by `predict`, as the options of decoding change it.

        Args:
            calls: how many predictions of the reverse process came before.
        """

    def round(self, z: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """The tokens of a state, int64 (N,), and their log-probabilities (N,)."""

    def guess(self, z: Any, prediction: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The tokens of the target that a prediction stands for, and their log-probabilities."""

    def corrupt(
        self, tokens: torch.Tensor, time: float, noise: torch.Tensor, layout: Layout
    ) -> Any:
        """The state at a time of given targets, drawn from the forward process of training.

        Args:
            tokens: int64 (N,), with their frame.
            time: in [0, 1).
            noise: (N, noise_dim), as the model's samplers draw it.
            layout: of the tokens.
        """

    def log_probs(self, tokens: torch.Tensor, z: Any, prediction: torch.Tensor) -> torch.Tensor:
        """Log-probabilities (N,) of given tokens under a prediction that was made from z."""

    def blank(self, count: int, device: torch.device) -> tuple[Any, torch.Tensor]:
        """A state and a prediction of `count` tokens, to be overwritten."""

    def max_positions(self) -> tuple[int, int]:
        """The longest source and target, in tokens, with their frame."""


class DiffusionTask:
    """Base class of fairseq tasks for diffusion models, whose sources and targets begin with BOS.

    Models and criteria of diffusion are not built for any other task.
    """


FAMILIES: list[Any] = []  # every class that implements the contract


def is_family(kind: type) -> bool:
    """Whether models of a class implement the contract."""
    return issubclass(kind, tuple(FAMILIES))


def is_diffusion_model(model: Any) -> TypeGuard[Family]:
    """Whether a model, of whatever plug-in, implements the contract."""
    return isinstance(model, tuple(FAMILIES))
