"""What models of discrete diffusion share, whether lengths are given or grow."""

from typing import Any, NamedTuple, Optional

import torch
from torch import nn

from difformer_plugin.diffusion.categorical.draft import Draft
from difformer_plugin.diffusion.categorical.process import ForwardProcess
from difformer_plugin.diffusion.categorical.samplers.base import (
    NOISE_DIM,
    Logits,
    Vocabulary,
    fill_argmax,
)
from difformer_plugin.diffusion.noise import (
    SentenceNoise,
    sentence_keys,
    uniform,
    uniform_noise,
)
from difformer_plugin.diffusion.times import low_discrepancy
from difformer_plugin.families.base import (
    SELF_COND_PROBABILITY,
    VALIDATION_SEED,
    DiffusionModel,
    rank_generator,
)
from difformer_plugin.families.tokens.data_process import DataDependentProcess


class Gaps(NamedTuple):
    """The gaps of shortened targets, in which tokens may be missing."""

    log_expected: torch.Tensor  # (G,), what the network expects
    missing: torch.Tensor  # int64 (G,), the true numbers
    t: torch.Tensor  # float64 (G,)


class DiscreteOutput(NamedTuple):
    """What the objective needs of one training step: its M tokens are those that are predicted."""

    predictions: torch.Tensor  # (M, D)
    x_0: torch.Tensor  # int64 (M,), types
    x_t: torch.Tensor  # int64 (M,), types or the mask
    s: torch.Tensor  # float64 (M,), the times
    t: torch.Tensor  # float64 (M,)
    num_tokens: torch.Tensor  # int64 (B,), of each target, without its frame
    length_logits: Optional[torch.Tensor]  # (B, 256)
    length_classes: Optional[torch.Tensor]  # (B,)
    gaps: Optional[Gaps]


class TokenDiffusionModel(DiffusionModel):
    """Diffusion of tokens with an encoder-decoder Transformer.

    BOS, EOS and padding are never corrupted and never drawn. All others are, <unk> included, since
    the bound has to count it. The mask is the index after the dictionary's last, so that no index
    of the dictionary changes.
    """

    criterion = "discrete_diffusion_loss"
    noise_dim = NOISE_DIM

    def __init__(
        self,
        cfg: Any,
        encoder: nn.Module,
        denoiser: nn.Module,
        length_predictor: nn.Module | None,
        dictionaries: tuple[Any, Any],
    ):
        super().__init__(cfg, encoder, denoiser, length_predictor, dictionaries)
        target = dictionaries[1]
        first_type = max(target.bos(), target.pad(), target.eos()) + 1
        self.vocabulary = Vocabulary(target.bos(), target.eos(), first_type, len(target))
        # The name under which checkpoints keep its state.
        self.chain = self.build_process(cfg, target, first_type)

    @staticmethod
    def build_process(cfg: Any, dictionary: Any, first_type: int) -> DataDependentProcess:
        """The forward process of a configuration."""
        return DataDependentProcess.from_config(cfg, dictionary, first_type)

    @property
    def process(self) -> ForwardProcess:
        """The categorical process."""
        return self.chain.process

    def prepare_training(self, task: Any) -> None:
        """Tell the process where the data are, in case it needs them."""
        super().prepare_training(task)
        self.chain.task = task

    def draw(
        self, src_tokens: torch.Tensor, length: int, part: tuple[int, int]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The random numbers of a training step.

        In evaluation mode they are functions of the source sentence and `part` alone.

        Args:
            src_tokens: (B, S); length: L of the targets.
            part: in evaluation mode, (i, n): the i-th of n evenly spaced times.
        Returns:
            uniform numbers for times (B,) and for tokens (B, L, NOISE_DIM), and which sentences
            are self-conditioned (B,).
        """
        count, device = len(src_tokens), src_tokens.device
        if self.training:
            options = {"device": device, "generator": rank_generator(device)}
            u = low_discrepancy(torch.rand(1, **options), torch.randperm(count, **options))
            noise = torch.rand(count, length, NOISE_DIM, **options)
            return u, noise, torch.rand(count, **options) < SELF_COND_PROBABILITY
        i, parts = part
        keys = sentence_keys(src_tokens, self.encoder.pad, VALIDATION_SEED)
        u = uniform(keys, 2)
        noise = SentenceNoise(keys, torch.zeros_like(keys), uniform_noise)(i, (length, NOISE_DIM))
        return (u[:, 0] + i / parts) % 1, noise, u[:, 1] < SELF_COND_PROBABILITY

    def rounding_table(self, denoiser: nn.Module) -> torch.Tensor:
        """The table (n, D) that scores the types."""
        return denoiser.output_projection.weight[self.vocabulary.first_type :]

    def logits(self, predictions: torch.Tensor) -> torch.Tensor:
        """Scores of the types (M, n), of predictions (M, D)."""
        table = self.rounding_table(self.denoiser)
        return predictions.type_as(table) @ table.T

    def embed_state(self, z: Draft, t: torch.Tensor, denoiser: nn.Module) -> torch.Tensor:
        """The embeddings of a draft's tokens, (N, D)."""
        return denoiser.embed(z.tokens)

    def clean_state(self, tokens: torch.Tensor) -> Draft:
        """The draft of tokens (N,)."""
        return Draft(tokens, torch.zeros(len(tokens), device=tokens.device))

    def blank(self, count: int, device: torch.device) -> tuple[Draft, torch.Tensor]:
        """A state x_t and a prediction of `count` tokens, to be overwritten."""
        tokens = torch.zeros(count, dtype=torch.long, device=device)
        prediction = torch.zeros(count, self.cfg.latent_dim, device=device)
        return Draft(tokens, prediction[:, 0].clone()), prediction

    def round(self, z: Draft) -> tuple[torch.Tensor, torch.Tensor]:
        """The tokens (N,) of a draft and their log-probabilities (N,) when they were drawn."""
        return z.tokens, z.log_probs

    def guess(self, z: Draft, prediction: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The tokens (N,) of the target that a prediction stands for, and log-probabilities."""
        return self.round(self.filled(z, prediction, self.logits))

    def filled(self, z: Draft, prediction: torch.Tensor, logits: Logits) -> Draft:
        """The draft with the likeliest types: of masks, or of all tokens without a mask."""
        return fill_argmax(z, prediction, self.vocabulary, logits, self.chain.kind.has_mask)
