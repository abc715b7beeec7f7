"""The models that are measured, from checkpoints or with random weights, each with its data."""

import copy
from os import PathLike
from typing import Any, Self

import numpy as np
import torch
from fairseq import utils
from fairseq.dataclass.configs import GenerationConfig
from fairseq.iterative_refinement_generator import IterativeRefinementGenerator
from fairseq.models import BaseFairseqModel
from fairseq.sequence_generator import SequenceGenerator
from fairseq.tasks import FairseqTask

from difformer_plugin.bench.models import (
    CMLM,
    TRANSFORMER,
    diffusion_options,
    random_model,
    size_options,
)
from difformer_plugin.bench.reference_lengths import (
    ReferenceLengthPredictor,
    ReferenceLengths,
    ReferenceSearch,
    predict_reference_lengths,
)
from difformer_plugin.decoding.candidates import FRAME
from difformer_plugin.distillation.teacher import Teacher
from difformer_plugin.errors import UserError
from difformer_plugin.families.contract import Family, is_diffusion_model


class Subject:
    """A model with its task and a split of the data-bin.

    Args:
        model: of fairseq or of this plug-in.
        task: of that model.
        trained: whether the weights are those of a checkpoint.
        generator: of fairseq's, with which the model translates; None for a diffusion model, which
            is given one at each call.
    Attributes:
        num_boundaries: symbols around each output, BOS and EOS, that are not counted as tokens.
    """

    num_boundaries = FRAME

    def __init__(
        self,
        model: BaseFairseqModel,
        task: FairseqTask,
        trained: bool,
        generator: Any = None,
    ):
        self.model, self.task, self.trained = model, task, trained
        self.generator = generator
        self.references: ReferenceLengths | None = None

    def load(self, subset: str, device: torch.device) -> Self:
        """Load the split; a model with random weights is then given its reference lengths.

        Raises:
            UserError: the split has no targets.
        """
        self.model.to(device).eval()
        self.device, self.batches = device, {}
        self.task.load_dataset(subset)
        self.dataset = self.task.dataset(subset)
        if self.dataset.tgt is None:
            raise UserError(f"{subset} has no targets, whose lengths and tokens are needed")
        if not self.trained:
            self.references = ReferenceLengths(self.reference_lengths().to(device))
            self._use_reference_lengths()
        return self

    def _use_reference_lengths(self) -> None:
        """Make outputs as long as the references."""
        raise NotImplementedError

    def batch(self, numbers: np.ndarray) -> dict[str, Any]:
        """The batch of these sentences, on the device; kept for later calls."""
        key = tuple(numbers.tolist())
        if key not in self.batches:
            batch = self.dataset.collater([self.dataset[i] for i in key])
            self.batches[key] = utils.apply_to_sample(lambda x: x.to(self.device), batch)
        return self.batches[key]

    def source_texts(self, numbers: np.ndarray) -> list[str]:
        """The sources of these sentences as subwords, separated by blanks."""
        dictionary = self.task.source_dictionary
        return [dictionary.string(self.dataset.src[int(number)]) for number in numbers]

    @torch.no_grad()
    def translate(self, batch: dict[str, Any], generator: Any = None) -> list[list[Any]]:
        """The hypotheses of each sentence of a batch, best first."""
        if self.references:
            self.references.select(batch["id"])
        return (generator or self.generator).generate([self.model], batch)

    def cast(self, dtype: torch.dtype) -> Self:
        """The same subject with a copy of its model in another precision."""
        other = copy.copy(self)
        other.model = copy.deepcopy(self.model).to(dtype)
        if other.references:
            other._use_reference_lengths()
        return other

    def reference_lengths(self) -> torch.Tensor:
        """Tokens of each reference of the split without BOS, EOS and padding, int64 (N,)."""
        dictionary = self.task.target_dictionary
        frame = torch.tensor([dictionary.bos(), dictionary.eos(), dictionary.pad()])
        return torch.tensor([int((~torch.isin(t.long(), frame)).sum()) for t in self.dataset.tgt])

    @property
    def weights(self) -> str:
        """A description of the weights for the user."""
        return "a checkpoint" if self.trained else "random weights, lengths of the references"

    @property
    def parameters(self) -> int:
        """Number of parameters."""
        return sum(parameter.numel() for parameter in self.model.parameters())


class DiffusionSubject(Subject):
    """A diffusion model of any family."""

    model: Family

    def _use_reference_lengths(self) -> None:
        if self.model.predicts_length:
            self.model.length_predictor = ReferenceLengthPredictor(self.references)

    @property
    def weights(self) -> str:
        """A description of the weights for the user."""
        if self.trained or self.model.predicts_length:
            return super().weights
        return "random weights, which determine the lengths of the outputs"


class TransformerSubject(Subject):
    """fairseq's autoregressive Transformer with beam search."""

    option, options = "--transformer", TRANSFORMER
    generator_type, search = SequenceGenerator, {"beam": 5}
    num_boundaries = 1  # EOS alone

    def _use_reference_lengths(self) -> None:
        self.generator.search = ReferenceSearch(self.task.target_dictionary, self.references)


class CMLMSubject(Subject):
    """fairseq's CMLM with 10 iterations of Mask-Predict."""

    option, options = "--cmlm", CMLM
    generator_type = IterativeRefinementGenerator
    search = {"iter_decode_max_iter": 9, "iter_decode_force_max_iter": True}  # counted from 0

    def _use_reference_lengths(self) -> None:
        predict_reference_lengths(self.model.decoder, self.references)


def diffusion(
    data: str | PathLike, path: str | None, arch: str, model_options: str | None, seed: int
) -> DiffusionSubject:
    """The diffusion model of a checkpoint, or one of a named size with random weights.

    Raises:
        UserError: the checkpoint is of another kind, or --model-options is given with it.
    """
    if path:
        if model_options:
            raise UserError(
                "--model-options apply to random weights only: leave them out with --path"
            )
        loaded = Teacher([path], data, {})
        if not is_diffusion_model(loaded.models[0]):
            kind = type(loaded.models[0]).__name__
            raise UserError(f"--path {path} is a {kind}: give a diffusion model's checkpoint")
        return DiffusionSubject(loaded.models[0], loaded.task, True)
    _, task, model = random_model(data, seed, diffusion_options(arch, model_options))
    return DiffusionSubject(model, task, False)


def baseline(
    kind: Any,
    data: str | PathLike,
    path: str | None,
    like: Family,
    seed: int,
) -> Subject:
    """One of fairseq's models, from a checkpoint or with random weights.

    Args:
        like: the diffusion model whose size a model with random weights takes.
    Raises:
        UserError: the checkpoint does not translate with this kind's generator.
    """
    if path:
        loaded = Teacher([path], data, kind.search)
        if not isinstance(loaded.generator, kind.generator_type):
            found = type(loaded.models[0]).__name__
            raise UserError(
                f"{kind.option} {path} is a {found}, which does not translate in this way"
            )
        return kind(loaded.models[0], loaded.task, True, loaded.generator)
    cfg, task, model = random_model(data, seed, kind.options, size_options(like))
    model.prepare_for_inference_(cfg)
    generator = task.build_generator([model], GenerationConfig(**kind.search))
    return kind(model, task, False, generator)
