"""What diffusion models of every family share: networks, self-conditioning, precision, loading."""

import copy
import os
from dataclasses import fields

import torch
from fairseq.data.data_utils import infer_language_pair
from fairseq.models import BaseFairseqModel, register_model_architecture

from difformer_plugin.checkpoints.fingerprint import KEY, check_dictionaries, fingerprint
from difformer_plugin.errors import UserError
from difformer_plugin.networks.layout import Layout
from difformer_plugin.networks.speedups import ENGINE

SELF_COND_PROBABILITY = 0.5
VALIDATION_SEED = 0


class DiffusionModel(BaseFairseqModel):
    """An encoder, a denoiser that predicts the uncorrupted target, and a length predictor.

    A family adds what is diffused: `forward`, for training; and for decoding `decoding_process`,
    `predict`, `round`, `guess`, `likeliest`, `blank`, `noise_shape` and `time_unit`.

    Attributes:
        criterion: the name of the criterion that it is trained with.
    """

    means = ENGINE
    criterion = None

    def __init__(self, cfg, encoder, denoiser, length_predictor, dictionaries):
        super().__init__()
        self.cfg = cfg
        self.encoder, self.denoiser = encoder, denoiser
        self.length_predictor = length_predictor
        self.derived = {}  # what decoding has made of the weights: out of date when they change
        self.register_buffer(KEY, torch.tensor([fingerprint(d) for d in dictionaries]))

    def prepare_training(self, task):
        """Choose what is left to be chosen, before the first update; the task has the data."""

    def check_decoding(self, options):
        """Raise a UserError for DecodingOptions that this model cannot decode with."""
        self.decoding_process(options)

    def measures(self):
        """What validation logs of the model itself: names -> floats."""
        return {}

    def denoise_conditioned(self, z_t, t, layout, memory, conditioned):
        """Predictions (N, D) of training, those of the sentences `conditioned` from the previous.

        Args:
            z_t: (N, D), of the tokens of the Layout.
            t: (B,); conditioned: bool (B,).
        """
        context = self.denoiser.context(memory)
        previous = torch.zeros_like(z_t)
        if self.cfg.self_cond and conditioned.any():
            with torch.no_grad():
                first = self._first_prediction(z_t, t, layout, memory, context, conditioned)
                previous[conditioned[layout.rows]] = first.type_as(previous)  # halves by autocast
            # autocast may keep the halves made without gradients, and use them in the next pass
            torch.clear_autocast_cache()
        return self.denoiser.denoise(z_t, t, layout, context, previous)

    def _first_prediction(self, z_t, t, layout, memory, context, conditioned):
        own = z_t[conditioned[layout.rows]]
        context = (
            context.select(conditioned)
            if self.means.share
            else self.denoiser.context(memory.select(conditioned))
        )
        layout = self.layout(layout.mask[conditioned])
        return self.denoiser.denoise(own, t[conditioned], layout, context, torch.zeros_like(own))

    def layout(self, mask):
        """The Layout of training for targets padded on the right: mask (B, L)."""
        return Layout.packed(mask) if self.means.pack else Layout.dense(mask)

    def context(self, memory, dtype=None):
        """What predictions read of a Memory, in the precision that they are to be made in.

        Args:
            dtype: a floating-point type; None for the model's own.
        """
        denoiser = self.denoiser_in(dtype or memory.states.dtype)
        return denoiser.context(memory.to(dtype or memory.states.dtype))

    def denoiser_in(self, dtype):
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

    def complete(self, state):
        """A state dict of an older version, with what it lacks."""
        return state

    def load_state_dict(self, state_dict, strict=True, model_cfg=None, args=None):
        """Load weights, having checked that they belong to these dictionaries."""
        self.derived.clear()
        state_dict = self.complete(check_dictionaries(self, state_dict))
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


def refuse_options(options, names, model):
    """Raise a UserError for options of decoding that mean nothing to a model.

    Args:
        options: DecodingOptions; names: of those that must have their defaults.
        model: what has no use for them.
    """
    for f in fields(options):
        if f.name in names and getattr(options, f.name) != f.default:
            raise UserError(f"--{f.name.replace('_', '-')} means nothing to {model}: leave it out")


def process_generator(device):
    """Random numbers of this process's own; fairseq seeds all processes of a training alike."""
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    rank = torch.distributed.get_rank() if distributed else 0
    return torch.Generator(device).manual_seed(int(torch.randint(2**62, ())) + rank)


def register_architectures(model, architectures):
    """Register named sizes of a model: name -> options that it sets where the user does not."""
    for name, sizes in architectures.items():
        if name != model:  # registering the model has registered this one, with the defaults

            def fill(args, sizes=sizes):
                for option, value in sizes.items():
                    if not hasattr(args, option):
                        setattr(args, option, value)

            register_model_architecture(model, name)(fill)
