"""Checkpoints of the authors' implementation (fairseq 0.10, task and arch `difformer`) to ours.

Their pickle names two enums of their own package. They are read as harmless stand-ins, so that no
code of the checkpoint runs and weights-only loading stays on.
"""

import enum
import types
from dataclasses import asdict, fields

import torch
from fairseq.dataclass.configs import FairseqConfig
from omegaconf import OmegaConf

from difformer_plugin.checkpoints.loading import allow_plain_types, load_weights_only
from difformer_plugin.errors import UserError
from difformer_plugin.families.embeddings.config import DifformerConfig, check_config
from difformer_plugin.families.embeddings.objective import DifformerLossConfig
from difformer_plugin.tasks.diffusion_translation import DiffusionTranslationConfig

# What their implementation can do and ours does not, with the value that means "not used".
UNSUPPORTED = {
    "adaptive_input": False,
    "adaptive_softmax_cutoff": None,
    "cross_self_attention": False,
    "decoder_layerdrop": 0,
    "decoder_layers_to_keep": None,
    "encoder_layerdrop": 0,
    "encoder_layers_to_keep": None,
    "no_cross_attention": False,
    "no_decoder_final_norm": False,
    "no_token_positional_embeddings": False,
    "quant_noise_pq": 0,
    "quant_noise_scalar": 0,
    "src_embedding_copy": False,
    "tie_adaptive_weights": False,
}
# Names that they gave to the same option at one time or another.
RENAMED = {"noise_factor": "rescaling_factor", "decoding_noise_factor": "decoding_rescaling_factor"}
POSITIONS = 1024  # what their code falls back to where no position limit was given


def _stand_in(name, position):
    """An enum under the name by which their pickle asks for it."""
    kind = enum.Enum(name, {f"NO_{position}": 1, "BEFORE_PROJ": 2, "AFTER_PROJ": 3})
    kind.__module__, kind.__qualname__ = "difformer.modules", name
    return kind


EMBED_NORM_POSITION = _stand_in("EmbedNormPosition", "EMBED_NORM")
SELF_COND_POSITION = _stand_in("SelfCondPosition", "SELF_COND")


def load_original(path):
    """Read a checkpoint of the authors' implementation.

    Returns:
        its options (argparse.Namespace) and its state dict.
    """
    allow_plain_types()  # before the context manager, which on exit forbids what it has allowed
    with torch.serialization.safe_globals([EMBED_NORM_POSITION, SELF_COND_POSITION]):
        checkpoint = load_weights_only(path)
    args = checkpoint.get("args") if isinstance(checkpoint, dict) else None
    if args is None or "model" not in checkpoint or not hasattr(args, "latent_dim"):
        raise UserError(
            f"{path} is not a checkpoint of the authors' implementation of Difformer (no 'args' "
            "with a latent_dim beside 'model')"
        )
    return args, checkpoint["model"]


def convert_options(args):
    """Their options as ours: the model's, the criterion's and the task's.

    Raises:
        UserError: an option is in use that ours does not have; all such are named.
    """
    given = {RENAMED.get(name, name): value for name, value in vars(args).items()}
    missing = [
        f"--{name.replace('_', '-')} {given[name]}"
        for name, unused in UNSUPPORTED.items()
        if given.get(name, unused) not in (unused, None)
    ]
    if missing:
        raise UserError(f"options that this implementation does not have: {', '.join(missing)}")
    for name in ("max_source_positions", "max_target_positions"):
        if given.get(name) is None:
            given[name] = POSITIONS
    given["share_decoder_input_output_embed"] = bool(
        given.get("share_decoder_input_output_embed") or given.get("share_all_embeddings")
    )
    for name in ("embed_norm_affine", "embed_norm_before_proj"):  # theirs may do nothing
        given[name] = bool(given.get(name) and given.get("embed_norm"))
    given["self_cond_before_proj"] = bool(
        given.get("self_cond_before_proj") and given.get("self_cond")
    )
    # tables are in the checkpoint; where they once came from no longer matters
    given["encoder_embed_path"] = given["decoder_embed_path"] = None

    def pick(config):
        names = {f.name for f in fields(config)} - {"_name"}
        return config(**{name: value for name, value in given.items() if name in names})

    options = types.SimpleNamespace(
        model=pick(DifformerConfig), criterion=pick(DifformerLossConfig)
    )
    check_config(options.model)
    options.task = pick(DiffusionTranslationConfig)
    return options


def convert_weights(state, cfg):
    """Their state dict under our names.

    Raises:
        UserError: a weight has no place in our model.
    """
    norm = "norm_z_0" if cfg.embed_norm_before_proj else "norm_hidden"
    prefixes = {
        "decoder.embed_length.": "length_predictor.embed_length.",
        "decoder.embed_norm.": f"denoiser.{norm}.",
        "decoder.": "denoiser.",
        "encoder.": "encoder.",
    }
    derived = (".version", "._float_tensor", ".weights")
    converted = {}
    for name, tensor in state.items():
        if name.endswith(derived):
            continue
        prefix = next((p for p in prefixes if name.startswith(p)), None)
        if prefix is None:
            raise UserError(f"the checkpoint has a weight of unknown purpose: {name}")
        converted[prefixes[prefix] + name.removeprefix(prefix)] = tensor
    if "denoiser.output_projection.weight" not in converted:
        converted["denoiser.output_projection.weight"] = converted["denoiser.embed_tokens.weight"]
    return converted


def convert_checkpoint(path):
    """A checkpoint of ours (a dict to be saved) from one of theirs.

    It has no optimizer state: training starts from it with --finetune-from-model.
    """
    args, state = load_original(path)
    options = convert_options(args)
    config = OmegaConf.to_container(OmegaConf.structured(FairseqConfig()), enum_to_str=True)
    for part, name in (
        ("model", "difformer"),
        ("task", "diffusion_translation"),
        ("criterion", "difformer_loss"),
    ):
        config[part] = {**asdict(getattr(options, part)), "_name": name}
    return {
        "args": None,
        "cfg": config,
        "model": convert_weights(state, options.model),
        "optimizer_history": [
            {
                "criterion_name": "DifformerLoss",
                "optimizer_name": "none",
                "lr_scheduler_state": {},
                "num_updates": 0,
            }
        ],
        "task_state": {},
        "extra_state": {"epoch": 0, "metrics": {}},
        "last_optimizer_state": None,
    }
