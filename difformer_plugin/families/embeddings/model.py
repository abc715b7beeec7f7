"""Difformer, registered with fairseq: Gaussian diffusion of embeddings."""

from typing import NamedTuple

import torch
from fairseq.models import register_model

from difformer_plugin.diffusion.gaussian.anisotropy import anisotropy
from difformer_plugin.diffusion.gaussian.process import GaussianProcess
from difformer_plugin.diffusion.noise import SentenceNoise, sentence_keys, uniform
from difformer_plugin.families.base import (
    SELF_COND_PROBABILITY,
    VALIDATION_SEED,
    DiffusionModel,
    process_generator,
    refuse_options,
    register_architectures,
)
from difformer_plugin.families.embeddings.config import ARCHITECTURES, DifformerConfig, check_config
from difformer_plugin.families.embeddings.rescaling import Rescaling
from difformer_plugin.networks.building import build_networks
from difformer_plugin.networks.config import with_defaults

DISCRETE_OPTIONS = ("decoding_sampler", "decoding_temperature", "decoding_remasking")


class DiffusionOutput(NamedTuple):
    """What the objective needs of one training step."""

    z_0: torch.Tensor  # (N, D), of the N real tokens, one sentence after another
    z_0_hat: torch.Tensor  # (N, D)
    mask: torch.Tensor  # (B, L), True at real positions
    length_logits: torch.Tensor  # (B, 256)
    length_classes: torch.Tensor  # (B,)


@register_model("difformer", dataclass=DifformerConfig)
class Difformer(DiffusionModel):
    """Gaussian diffusion on learned embeddings with an encoder-decoder Transformer (Sec. 3.3)."""

    criterion = "difformer_loss"

    def __init__(self, cfg, encoder, denoiser, length_predictor, dictionaries):
        super().__init__(cfg, encoder, denoiser, length_predictor, dictionaries)
        self.rescaling = Rescaling(cfg, len(dictionaries[1]))
        self._measured = None

    @classmethod
    def build_model(cls, cfg, task):
        """Build a model for the task's dictionaries."""
        cfg = with_defaults(cfg, DifformerConfig)
        check_config(cfg)
        dictionaries = task.source_dictionary, task.target_dictionary
        time_scale = 1000.0 / cfg.diffusion_steps if cfg.rescale_timesteps else 1.0
        return cls(cfg, *build_networks(cfg, *dictionaries, time_scale), dictionaries)

    def forward(self, src_tokens, target, **unused):
        """One step of training: corrupt the target at a random time and predict it back.

        In evaluation mode time and noise are functions of the source sentence, so that validation
        losses can be compared from one epoch to the next and do not depend on the batches.

        Args:
            src_tokens: (B, S); target: (B, L), padded on the right.
        Returns:
            DiffusionOutput.
        """
        mask = target.ne(self.denoiser.pad)
        memory = self.encoder(src_tokens)
        z_0 = self.denoiser.embed(target)
        t, noise, conditioned = self._draw(src_tokens, z_0)
        z_t = self.process.q_sample(z_0, t, noise)

        real = mask.flatten().nonzero()[:, 0]
        z_0, z_t = z_0.flatten(0, 1).index_select(0, real), z_t.flatten(0, 1)
        if self.means.pack:
            z_t = z_t.index_select(0, real)
        z_0_hat = self.denoise_conditioned(z_t, t, self.layout(mask), memory, conditioned)
        return DiffusionOutput(
            z_0,
            z_0_hat if self.means.pack else z_0_hat.index_select(0, real),
            mask,
            self.length_predictor(memory),
            self.length_predictor.classes(mask.sum(1), memory),
        )

    def _draw(self, src_tokens, z_0):
        """Time steps (B,), standard normal noise (B, L, D), and who is self-conditioned (B,)."""
        if self.training:
            generator = process_generator(z_0.device)
            u = torch.rand(2, len(z_0), device=z_0.device, generator=generator)
            noise = torch.randn(z_0.shape, dtype=z_0.dtype, device=z_0.device, generator=generator)
        else:
            keys = sentence_keys(src_tokens, self.encoder.pad, VALIDATION_SEED)
            u = uniform(keys, 2).T
            noise = SentenceNoise(keys, torch.zeros_like(keys))(0, z_0.shape[1:]).to(z_0)
        t = (u[0] * len(self.process)).long()
        return t, noise, u[1] < SELF_COND_PROBABILITY

    @property
    def process(self):
        """The process of training."""
        return self.rescaling.process

    @torch.no_grad()
    def prepare_training(self, task):
        """Choose F, where that is left to us."""
        self.rescaling.begin(self.denoiser.table())

    @torch.no_grad()
    def set_num_updates(self, num_updates):
        """Called before each update: now and then, F follows the embeddings."""
        super().set_num_updates(num_updates)
        if self.rescaling.is_due(num_updates):
            self.rescaling.follow(self.denoiser.table(), num_updates)

    @torch.no_grad()
    def measures(self):
        """ANI and DGS of the embedding table and F, as floats; kept until the table changes."""
        table, factor = self.denoiser.table(), self.rescaling.factor
        if self._measured is not None:
            measured_table, measures = self._measured
            if measures["rescaling_factor"] == factor and torch.equal(measured_table, table):
                return measures
        dgs = self.rescaling.score(table)
        measures = {"ani": anisotropy(table), "dgs": dgs, "rescaling_factor": factor}
        self._measured = table, measures
        return measures

    def decoding_process(self, options):
        """The process that decoding steps through: K steps, with a schedule and F of its own."""
        refuse_options(options, DISCRETE_OPTIONS, "a Difformer")
        return GaussianProcess.create(
            options.decoding_noise_schedule or self.cfg.noise_schedule,
            self.cfg.diffusion_steps,
            options.decoding_rescaling_factor,
            options.decoding_vp_rf,
        ).spaced(options.decoding_steps)

    @property
    def time_unit(self):
        """T: time steps count from 0 to T - 1."""
        return self.cfg.diffusion_steps

    def noise_shape(self, length):
        """The shape of the noise of a target of this length."""
        return length, self.cfg.latent_dim

    def blank(self, count, device):
        """A state z_t and a prediction of so many tokens, to be overwritten."""
        z_t = torch.zeros(count, self.cfg.latent_dim, device=device)
        return z_t, torch.zeros_like(z_t)

    def predict(self, z_t, timestep, layout, context, previous):
        """z_0-hat (N, D) in float32, whatever the precision of the context.

        Args:
            z_t: (N, D), of the tokens of the Layout.
            timestep: a training time step, the same for all; a number, or a tensor (1,).
            previous: the last z_0-hat, or None at the first step.
        """
        if previous is None:
            previous = torch.zeros_like(z_t)
        t = timestep
        if not torch.is_tensor(t):
            t = torch.full((1,), timestep, device=z_t.device, dtype=torch.float32)
        denoiser = self.denoiser_in(context.dtype)
        z_t, previous = z_t.to(context.dtype), previous.to(context.dtype)
        return denoiser.denoise(z_t, t, layout, context, previous).float()

    def round(self, z):
        """The likeliest tokens (N,) of latents (N, D) and their log-probabilities (N,)."""
        return self.denoiser.round(z)

    def guess(self, z, z_0_hat):
        """What a prediction says that the target is: as `round`."""
        return self.denoiser.round(z_0_hat)

    def likeliest(self, z, z_0_hat, context):
        """The tokens (N,) of `guess` alone, in the precision of the context."""
        return self.denoiser_in(context.dtype).likeliest(z_0_hat)

    def clamp(self, z_0_hat):
        """The clamping trick of Li et al. (2022): the embeddings of the likeliest tokens."""
        return self.denoiser.embed(self.round(z_0_hat)[0]).float()

    def complete(self, state):
        """An older state dict with this F."""
        return self.rescaling.complete(state)


register_architectures("difformer", ARCHITECTURES)
