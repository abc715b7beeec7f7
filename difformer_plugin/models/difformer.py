"""Difformer, registered with fairseq: encoder, length predictor and denoiser under one process."""

import copy
import os
from typing import NamedTuple

import torch
from fairseq.data.data_utils import infer_language_pair
from fairseq.models import BaseFairseqModel, register_model, register_model_architecture

from difformer_plugin.diffusion.embeddings import anisotropy
from difformer_plugin.diffusion.gaussian import GaussianProcess
from difformer_plugin.diffusion.noise import SentenceNoise, sentence_keys, uniform
from difformer_plugin.errors import UserError
from difformer_plugin.models.building import build_networks
from difformer_plugin.models.config import (
    ARCHITECTURES,
    DifformerConfig,
    check_config,
    with_defaults,
)
from difformer_plugin.models.fingerprint import KEY, check_dictionaries, fingerprint
from difformer_plugin.models.layout import Layout
from difformer_plugin.models.rescaling import Rescaling
from difformer_plugin.models.training_means import ENGINE

SELF_COND_PROBABILITY = 0.5
VALIDATION_SEED = 0


class DiffusionOutput(NamedTuple):
    """What the objective needs of one training step."""

    z_0: torch.Tensor  # (N, D), of the N real tokens, one sentence after another
    z_0_hat: torch.Tensor  # (N, D)
    mask: torch.Tensor  # (B, L), True at real positions
    length_logits: torch.Tensor  # (B, 256)
    length_classes: torch.Tensor  # (B,)


@register_model("difformer", dataclass=DifformerConfig)
class Difformer(BaseFairseqModel):
    """Gaussian diffusion on learned embeddings with an encoder-decoder Transformer (Sec. 3.3)."""

    means = ENGINE

    def __init__(self, cfg, encoder, denoiser, length_predictor, dictionaries):
        super().__init__()
        self.cfg = cfg
        self.encoder, self.denoiser = encoder, denoiser
        self.length_predictor = length_predictor
        self.rescaling = Rescaling(cfg, len(dictionaries[1]))
        self._measured = None
        self.derived = {}  # what decoding has made of the weights: out of date when they change
        self.register_buffer(KEY, torch.tensor([fingerprint(d) for d in dictionaries]))

    @classmethod
    def build_model(cls, cfg, task):
        """Build a model for the task's dictionaries."""
        cfg = with_defaults(cfg)
        check_config(cfg)
        dictionaries = task.source_dictionary, task.target_dictionary
        return cls(cfg, *build_networks(cfg, *dictionaries), dictionaries)

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
        layout, context = self._layout(mask), self.denoiser.context(memory)
        previous = torch.zeros_like(z_t)
        if self.cfg.self_cond and conditioned.any():
            with torch.no_grad():
                first = self._first_prediction(z_t, t, mask, layout, memory, context, conditioned)
                previous[conditioned[layout.rows]] = first.type_as(previous)  # halves by autocast
            # autocast may keep the halves made without gradients, and use them in the next pass
            torch.clear_autocast_cache()
        z_0_hat = self.denoiser.denoise(z_t, t, layout, context, previous)
        return DiffusionOutput(
            z_0,
            z_0_hat if self.means.pack else z_0_hat.index_select(0, real),
            mask,
            self.length_predictor(memory),
            self.length_predictor.classes(mask.sum(1), memory),
        )

    def _first_prediction(self, z_t, t, mask, layout, memory, context, conditioned):
        """z_0-hat of the tokens of the sentences `conditioned`, a boolean mask."""
        own = z_t[conditioned[layout.rows]]
        context = (
            context.select(conditioned)
            if self.means.share
            else self.denoiser.context(memory.select(conditioned))
        )
        layout = self._layout(mask[conditioned])
        return self.denoiser.denoise(own, t[conditioned], layout, context, torch.zeros_like(own))

    def _layout(self, mask):
        return Layout.packed(mask) if self.means.pack else Layout.dense(mask)

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
    def prepare_training(self):
        """Choose what is left to be chosen, before the first update."""
        self.rescaling.begin(self.denoiser.table())

    @torch.no_grad()
    def set_num_updates(self, num_updates):
        """Called before each update: now and then, F follows the embeddings."""
        super().set_num_updates(num_updates)
        if self.rescaling.is_due(num_updates):
            self.rescaling.follow(self.denoiser.table(), num_updates)

    @torch.no_grad()
    def embedding_measures(self):
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
        return GaussianProcess.create(
            options.decoding_noise_schedule or self.cfg.noise_schedule,
            self.cfg.diffusion_steps,
            options.decoding_rescaling_factor,
            options.decoding_vp_rf,
        ).spaced(options.decoding_steps)

    @property
    def diffusion_steps(self):
        """T."""
        return self.cfg.diffusion_steps

    def latent_shape(self, length):
        """The shape of a latent for a target of this length."""
        return length, self.cfg.latent_dim

    def context(self, memory, dtype=None):
        """What predictions read of a Memory, in the precision that they are to be made in.

        Args:
            dtype: a floating-point type; None for the model's own.
        """
        denoiser = self._denoiser_in(dtype or memory.states.dtype)
        return denoiser.context(memory.to(dtype or memory.states.dtype))

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
        denoiser = self._denoiser_in(context.dtype)
        z_t, previous = z_t.to(context.dtype), previous.to(context.dtype)
        return denoiser.denoise(z_t, t, layout, context, previous).float()

    def round(self, z):
        """The likeliest tokens (N,) of latents (N, D) and their log-probabilities (N,)."""
        return self.denoiser.round(z)

    def likeliest(self, z, context):
        """The likeliest tokens (N,) alone, in the precision of the context."""
        return self._denoiser_in(context.dtype).likeliest(z)

    def clamp(self, z_0_hat):
        """The clamping trick of Li et al. (2022): the embeddings of the likeliest tokens."""
        return self.denoiser.embed(self.round(z_0_hat)[0]).float()

    def _denoiser_in(self, dtype):
        """The denoiser in another precision, made once and kept as long as no weight changes."""
        if dtype == self.denoiser.output_projection.weight.dtype:
            return self.denoiser
        if dtype not in self.derived:
            self.derived[dtype] = copy.deepcopy(self.denoiser).to(dtype)
        return self.derived[dtype]

    def train(self, mode=True):
        """As any module's. Training changes the weights."""
        self.derived.clear()
        return super().train(mode)

    def _apply(self, *args, **kwargs):
        self.derived.clear()
        return super()._apply(*args, **kwargs)

    def max_positions(self):
        """The longest source and target, in tokens."""
        return self.cfg.max_source_positions, self.cfg.max_target_positions

    def load_state_dict(self, state_dict, strict=True, model_cfg=None, args=None):
        """Load weights, having checked that they belong to these dictionaries."""
        self.derived.clear()
        state_dict = self.rescaling.complete(check_dictionaries(self, state_dict))
        try:
            return super().load_state_dict(state_dict, strict, model_cfg, args)
        except RuntimeError as error:
            _, *details = str(error).splitlines()
            raise UserError(
                "the checkpoint's weights do not fit this model; give the model options that it "
                f"was trained with ({' '.join(details)[:300].strip()} ...)"
            ) from error

    @classmethod
    def from_pretrained(
        cls, model_name_or_path, checkpoint_file="model.pt", data_name_or_path=".", **kwargs
    ):
        """fairseq's, with the data's languages, which its tokeniser would take for English.

        Args:
            kwargs: options of the task, the tokeniser and the subwords, `source_lang` and
                `target_lang` included.
        """
        relative = data_name_or_path.startswith(".")
        folder = (
            os.path.join(model_name_or_path, data_name_or_path) if relative else data_name_or_path
        )
        if os.path.isdir(folder) and (pair := infer_language_pair(folder))[0]:
            kwargs = {"source_lang": pair[0], "target_lang": pair[1], **kwargs}
        return super().from_pretrained(
            model_name_or_path, checkpoint_file, data_name_or_path, **kwargs
        )

    @classmethod
    def hub_models(cls):
        """No checkpoints are published under a name: `from_pretrained` takes a folder."""
        return {}


def process_generator(device):
    """Random numbers of this process's own; fairseq seeds all processes of a training alike."""
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    rank = torch.distributed.get_rank() if distributed else 0
    return torch.Generator(device).manual_seed(int(torch.randint(2**62, ())) + rank)


def _register_architecture(name, sizes):
    def fill(args):
        for option, value in sizes.items():
            if not hasattr(args, option):
                setattr(args, option, value)

    register_model_architecture("difformer", name)(fill)


for _name, _sizes in ARCHITECTURES.items():
    if _name != "difformer":  # registering the model has registered this one, with the defaults
        _register_architecture(_name, _sizes)
