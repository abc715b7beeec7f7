"""What models that diffuse embeddings share: noise, its rescaling, samplers and rounding."""

from collections.abc import Iterable
from typing import Any, NamedTuple, Optional

import torch
from torch import nn

from difformer_plugin.diffusion.gaussian.anisotropy import anisotropy
from difformer_plugin.diffusion.gaussian.partly_clean import PartlyClean
from difformer_plugin.diffusion.gaussian.process import GaussianProcess, ScalarProcess
from difformer_plugin.diffusion.gaussian.rounding import beside, rounded_of, z_0_of
from difformer_plugin.diffusion.gaussian.samplers.ancestral import Ancestral
from difformer_plugin.diffusion.gaussian.samplers.base import GaussianSampler
from difformer_plugin.diffusion.noise import sentence_keys
from difformer_plugin.diffusion.sampler import SAMPLERS
from difformer_plugin.errors import UserError
from difformer_plugin.families.base import VALIDATION_SEED, DiffusionModel, rank_generator
from difformer_plugin.families.embeddings.config import unread_rescaling
from difformer_plugin.families.embeddings.corruption import (
    Corruption,
    corrupt,
    corrupt_for_validation,
)
from difformer_plugin.families.embeddings.importance import Draw, ImportanceTimes, completed
from difformer_plugin.families.embeddings.prediction import Predicting
from difformer_plugin.families.embeddings.rescaling import Rescaling
from difformer_plugin.networks.layers import Memory
from difformer_plugin.networks.layout import Layout


class Sequences(NamedTuple):
    """What training diffuses, padded on the right."""

    tokens: torch.Tensor  # int64 (B, L)
    places: torch.Tensor  # int64 (B, L), where they are among the positions of all targets
    padding: Optional[torch.Tensor] = None  # bool (B, L), padding that the model is to generate


class DiffusionOutput(NamedTuple):
    """What the objective needs of one training step."""

    z_0: torch.Tensor  # (N, D), of the N tokens that were corrupted, one target after another
    z_0_hat: torch.Tensor  # (N, D)
    tokens: torch.Tensor  # int64 (N,)
    places: torch.Tensor  # int64 (N,), where they are among the B L positions of the targets
    length_logits: torch.Tensor  # (B, 256)
    length_classes: torch.Tensor  # (B,)
    t: Optional[torch.Tensor] = None  # int64 (n,), the steps that the targets were corrupted to
    layout: Optional[Layout] = None  # of the n targets, whole
    predicted: Any = None  # which tokens of the layout the N are: indices, or a slice of all
    rows: Optional[torch.Tensor] = None  # int64 (N,), which of the n corrupted targets they are of
    drawn: Optional[Draw] = None  # how the times of the n targets were drawn, if by importance
    padding: Optional[torch.Tensor] = None  # bool (N,), padding that is to be generated
    rounded: Optional[torch.Tensor] = None  # (N, D), what the anchor loss rounds, if not z_0-hat


class EmbeddingDiffusionModel(Predicting, DiffusionModel):
    """Gaussian diffusion of learned embeddings; a subclass says what the network reads."""

    published_options = """
        --noise-schedule sqrt --rescaling-factor 4 --self-cond --rescale-timesteps --embed-norm
        --embed-norm-affine
    """  # Table 21
    diffuses_embeddings = True
    scores_targets = True
    reads = frozenset(
        {
            "decoding_noise_schedule",
            "decoding_rescaling_factor",
            "decoding_vp_rf",
            "clamping",
            "soft_clamping",
            "infill",
        }
    )

    def __init__(
        self,
        cfg: Any,
        encoder: nn.Module,
        denoiser: nn.Module,
        length_predictor: nn.Module,
        dictionaries: tuple[Any, Any],
    ):
        super().__init__(cfg, encoder, denoiser, length_predictor, dictionaries)
        self.rescaling = Rescaling(cfg, len(dictionaries[1]))
        self.importance = ImportanceTimes() if cfg.time_sampling == "importance" else None
        self.diffusion_steps, self.noise_dim = cfg.diffusion_steps, cfg.latent_dim
        self.time_unit = float(cfg.diffusion_steps)  # it is trained on steps from 0 to T - 1
        self._measured: tuple[torch.Tensor, dict[str, float]] | None = None

    # Training

    def forward(
        self, src_tokens: torch.Tensor, target: torch.Tensor, **unused: Any
    ) -> DiffusionOutput:
        """One step of training: corrupt the target at a random time and predict it back.

        In evaluation mode, time and noise are functions of the source sentence, so that validation
        losses are comparable between epochs and do not depend on the batches.

        Args:
            src_tokens: (B, S); target: (B, L), padded on the right.
        """
        copies = self.cfg.noises_per_sentence if self.training else 1
        memory, lengths = self.encoder(src_tokens), target.ne(self.denoiser.pad).sum(1)
        tokens, places, padding = (
            x if x is None else x.repeat_interleave(copies, 0)
            for x in self.sequences(memory, target)
        )
        mask = tokens.ne(self.denoiser.pad)
        layout, z_0 = self.layout(mask, copies), self.denoiser.embed(tokens)
        corrupted = self._corrupt(src_tokens, z_0, mask)
        clean = None if corrupted.clean is None else layout.take(corrupted.clean)
        state = self._read(corrupted.z_t, corrupted.t, layout, clean), corrupted.t, layout
        output = self.denoise_conditioned(
            *state,
            memory,
            corrupted.conditioned,
            clean,
            corrupted.earlier
            and (self._read(*corrupted.earlier, layout, clean), corrupted.earlier[1]),
        )
        z_0_hat = self.to_prediction(self.denoiser, output, *state)
        predicted: Any = slice(None)  # all tokens: nothing is copied
        if corrupted.clean is not None or layout.real is not None:
            wanted = mask if corrupted.clean is None else mask & ~corrupted.clean
            predicted = layout.take(wanted).nonzero()[:, 0]
        return DiffusionOutput(
            layout.take(z_0)[predicted],
            z_0_hat[predicted],
            layout.take(tokens)[predicted],
            layout.take(places)[predicted],
            self.length_predictor(memory),
            self.length_predictor.classes(lengths, memory),
            corrupted.t,
            layout,
            predicted,
            layout.rows[predicted],
            corrupted.drawn,
            None if padding is None else layout.take(padding)[predicted],
            output[predicted] if self.rounds_output else None,
        )

    def sequences(self, memory: Memory, target: torch.Tensor) -> Sequences:
        """What is diffused in training: the targets (B, L)."""
        return Sequences(target, torch.arange(target.numel(), device=target.device).view_as(target))

    def _corrupt(
        self, src_tokens: torch.Tensor, z_0: torch.Tensor, mask: torch.Tensor
    ) -> Corruption:
        """Corrupt targets z_0 (n, L, D), at random in training."""
        if self.training:
            generator = rank_generator(z_0.device)
            return corrupt(self.cfg, self.process, z_0, mask, generator, self.importance)
        keys = sentence_keys(src_tokens, self.encoder.pad, VALIDATION_SEED)
        return corrupt_for_validation(self.process, z_0, mask, keys)

    def _read(
        self, z_t: torch.Tensor, t: torch.Tensor, layout: Layout, clean: torch.Tensor | None
    ) -> torch.Tensor:
        """Corrupted targets (n, L, D) as the denoiser reads them, (N, D)."""
        z_t = layout.take(z_t)
        if not self.cfg.normalize_input:
            return z_t
        scaled = z_t / layout.spread(self._deviations(t, z_t))
        return scaled if clean is None else torch.where(clean[:, None], z_t, scaled)

    def _deviations(self, t: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """The deviations of z_t at times of the model's unit, (n,) -> (n, 1)."""
        series = self.scalar_process.deviations.on(like.device).to(like.dtype)
        return series[t.round().long().clamp(0, len(series) - 1)][:, None]

    @property
    def process(self) -> GaussianProcess:
        """The forward process of training, at all of its T steps."""
        return self.rescaling.process

    @property
    def scalar_process(self) -> ScalarProcess:
        """The process of training, for what needs one alpha-bar of all tokens at a time.

        Raises:
            UserError: the schedule depends on the position.
        """
        if not isinstance(self.process, ScalarProcess):
            raise UserError(
                f"--noise-schedule {self.cfg.noise_schedule} depends on the position, which "
                "--normalize-input does not know: leave it out, or use another schedule"
            )
        return self.process

    def unread_options(self) -> Iterable[tuple[str, str]]:
        """Those of noise rescaling."""
        return unread_rescaling(self.cfg)

    @torch.no_grad()
    def prepare_training(self, task: Any) -> None:
        """Choose F, where it is left to us."""
        super().prepare_training(task)
        self.rescaling.choose(self.denoiser.table(), "embeddings" in self.initialised)

    @torch.no_grad()
    def begin_training(self) -> None:
        """Log F. From now on it may follow the embeddings."""
        self.rescaling.begin(self.denoiser.table())

    @torch.no_grad()
    def set_num_updates(self, num_updates: int) -> None:
        """Called before each update: at some of them, F follows the embeddings."""
        super().set_num_updates(num_updates)
        if self.rescaling.is_due(num_updates):
            self.rescaling.follow(self.denoiser.table(), num_updates)

    @torch.no_grad()
    def measures(self) -> dict[str, float]:
        """ANI and DGS of the embedding table, and F; kept until the table changes."""
        table, factor = self.denoiser.table(), self.rescaling.factor
        if self._measured is not None:
            measured_table, measures = self._measured
            if measures["rescaling_factor"] == factor and torch.equal(measured_table, table):
                return measures
        dgs = self.rescaling.score(table)
        measures = {"ani": anisotropy(table), "dgs": dgs, "rescaling_factor": factor}
        self._measured = table, measures
        return measures

    # Decoding. Predictions are (N, D) or (N, 2D), see `diffusion.gaussian.rounding`.

    def predict(
        self,
        z: Any,
        time: float | torch.Tensor,
        layout: Layout,
        conditions: Any,
        previous: torch.Tensor | None,
        absent: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The prediction for each token; see `Family.predict`."""
        z_0_hat = None if previous is None else z_0_of(previous, self.noise_dim)
        return super().predict(z, time, layout, conditions, z_0_hat, absent)

    def decoded(self, output: torch.Tensor, prediction: torch.Tensor) -> torch.Tensor:
        """z_0-hat, and the output beside it if that is what is rounded."""
        return beside(prediction, output) if self.rounds_output else prediction

    def samplers(self) -> dict[str, type[GaussianSampler]]:
        """All samplers of Gaussian diffusion; the ancestral one is the default."""
        others = {
            s.name: s
            for s in SAMPLERS
            if issubclass(s, GaussianSampler)
            and (self.cfg.clean_tokens > 0 or not s.decides_tokens)
        }
        return {Ancestral.name: Ancestral} | others

    def build_sampler(
        self, kind: type[GaussianSampler], options: Any, settings: dict[str, Any]
    ) -> GaussianSampler:
        """A sampler of K steps, with times, a noise schedule and an F of decoding's own."""
        process = GaussianProcess.create(
            options.decoding_noise_schedule or self.cfg.noise_schedule,
            self.cfg.diffusion_steps,
            options.decoding_rescaling_factor,
            options.decoding_vp_rf,
        )
        process = process.spaced(options.decoding_steps, options.decoding_timesteps)
        return kind(process, self.nearest, options.infill, **settings)

    def clean_state(self, tokens: torch.Tensor) -> torch.Tensor:
        """z_0 (N, D) of tokens (N,)."""
        return self.denoiser.embed(tokens).float()

    def certain(
        self, prediction: torch.Tensor, tokens: torch.Tensor, given: torch.Tensor
    ) -> torch.Tensor:
        """A prediction whose z_0-hat is z_0 where tokens are given."""
        z_0 = self.clean_state(tokens).to(prediction.dtype)
        known = torch.where(given[:, None], z_0, z_0_of(prediction, self.noise_dim))
        return torch.cat([known, prediction[:, self.noise_dim :]], dim=-1)

    def blank(self, count: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """A state z_t and a prediction of `count` tokens, to be overwritten."""
        z_t = torch.zeros(count, self.cfg.latent_dim, device=device)
        state = PartlyClean.noisy(z_t) if self.cfg.clean_tokens > 0 else z_t
        return state, torch.zeros_like(z_t)

    def embed_state(self, z: Any, t: torch.Tensor, denoiser: nn.Module) -> torch.Tensor:
        """z_t (N, D) in the denoiser's precision, divided by its deviation if so trained."""
        clean = self.clean_tokens(z)
        z_t = z if clean is None else z.z
        if self.cfg.normalize_input:
            scaled = z_t / self._deviations(t, z_t)
            z_t = scaled if clean is None else torch.where(clean[:, None], z_t, scaled)
        return z_t.to(denoiser.output_projection.weight.dtype)

    def clean_tokens(self, z: Any) -> torch.Tensor | None:
        """The tokens of a state that are decided, bool (N,); None if its sampler decides none."""
        return z.clean if isinstance(z, PartlyClean) else None

    def nearest(self, prediction: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The likeliest types (N,), their embeddings (N, D), and their log-probabilities (N,)."""
        tokens, log_probs = self.round(prediction)
        return tokens, self.denoiser.embed(tokens), log_probs

    def refine(self, prediction: torch.Tensor, options: Any, calls: int) -> torch.Tensor:
        """The prediction with z_0-hat clamped, if so wanted; see `Family.refine`.

        With --clamping z_0-hat is the embeddings of the likeliest tokens (Li et al., 2022); in the
        first calls, as many as --soft-clamping says, the mean of all embeddings
        (`Denoiser.expected`). How likely tokens are is not changed.
        """
        rounded = rounded_of(prediction, self.noise_dim)
        if options.clamping:
            return beside(self.nearest(prediction)[1].float(), rounded)
        if calls < options.soft_clamping:
            return beside(self.denoiser.expected(rounded).float(), rounded)
        return prediction

    def round(self, z: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """The likeliest tokens (N,) of latents or a prediction, and their log-probabilities (N,).

        A token that its sampler has decided keeps its type and its log-probability.
        """
        if not isinstance(z, PartlyClean):
            return self.denoiser.round(rounded_of(z, self.noise_dim))
        tokens, log_probs = self.denoiser.round(z.z)
        tokens = torch.where(z.clean, z.tokens, tokens)
        return tokens, torch.where(z.clean, z.log_probs, log_probs)

    def guess(self, z: Any, prediction: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The tokens of a prediction, or of z_0 where it is decided; see `round`."""
        if not isinstance(z, PartlyClean):
            return self.round(prediction)
        rounded = rounded_of(prediction, self.noise_dim)
        return self.round(PartlyClean(z.completed(rounded), z.clean, z.log_probs, z.tokens))

    def corrupt(
        self, tokens: torch.Tensor, time: float, noise: torch.Tensor, layout: Layout
    ) -> torch.Tensor:
        """z_t (N, D) of tokens (N,) at a time in [0, 1), with the F of training (Eq. 3)."""
        step = torch.full_like(layout.lengths, int(time * len(self.process)))
        return self.process.q_sample(self.clean_state(tokens), step, noise, layout)

    def log_probs(
        self, tokens: torch.Tensor, z: torch.Tensor, prediction: torch.Tensor
    ) -> torch.Tensor:
        """Log-probabilities (N,) of tokens in the rounding of a prediction."""
        return self.denoiser.log_probs(tokens, rounded_of(prediction, self.noise_dim))

    def complete(self, state: dict[str, Any]) -> dict[str, Any]:
        """A state dict of an older version or of other options, with this F."""
        return completed(self.importance, self.rescaling.complete(state))
