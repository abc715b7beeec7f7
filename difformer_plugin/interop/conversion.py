"""Convert checkpoints of the authors' implementation of Difformer (fairseq 0.10) to ours.

Converted are

- the options, under our names and split into model, criterion and task (`convert_options`),
- the weights, under our names (`convert_weights`).

Not converted are the state of the optimizer and of the training. In this package, "original" refers
to the authors' implementation.
"""

import argparse
import enum
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from os import PathLike
from typing import Any

import torch
from fairseq.dataclass.configs import FairseqConfig
from omegaconf import OmegaConf

from difformer_plugin.checkpoints.loading import allow_plain_types, load_weights_only
from difformer_plugin.errors import UserError
from difformer_plugin.families.embeddings.config import DifformerConfig, check_config
from difformer_plugin.families.embeddings.objective import DifformerLossConfig
from difformer_plugin.tasks.diffusion_translation import DiffusionTranslationConfig

# Original options that ours does not have, with the value that means "not used".
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
# Earlier names of original options -> later names, which are ours.
RENAMED = {"noise_factor": "rescaling_factor", "decoding_noise_factor": "decoding_rescaling_factor"}
DEFAULT_MAX_POSITIONS = 1024  # if the original options give no limit


def _stand_in(name, position):
    """A stand-in for an enum of the original package, under the name that its pickle refers to."""
    kind = enum.Enum(name, {f"NO_{position}": 1, "BEFORE_PROJ": 2, "AFTER_PROJ": 3})
    kind.__module__, kind.__qualname__ = "difformer.modules", name
    return kind


# With these, original checkpoints load in weights-only mode, so that none of their code runs.
EMBED_NORM_POSITION = _stand_in("EmbedNormPosition", "EMBED_NORM")
SELF_COND_POSITION = _stand_in("SelfCondPosition", "SELF_COND")


@dataclass(frozen=True)
class ConvertedOptions:
    """Original options as ours.

    Attributes:
        model: of the model.
        criterion: of its criterion.
        task: of the task, options of decoding included.
    """

    model: DifformerConfig
    criterion: DifformerLossConfig
    task: DiffusionTranslationConfig


def load_original(path: str | PathLike) -> tuple[argparse.Namespace, dict[str, torch.Tensor]]:
    """Read an original checkpoint without running its code.

    Returns:
        its options and its state dict.
    Raises:
        UserError: the file is another checkpoint, or unreadable.
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


def convert_options(args: argparse.Namespace) -> ConvertedOptions:
    """Convert original options.

    Raises:
        UserError: options are in use that ours does not have (all of them are named), or a value
            is impossible.
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
            given[name] = DEFAULT_MAX_POSITIONS
    given["share_decoder_input_output_embed"] = bool(
        given.get("share_decoder_input_output_embed") or given.get("share_all_embeddings")
    )
    for name in ("embed_norm_affine", "embed_norm_before_proj"):  # without embed_norm, no effect
        given[name] = bool(given.get(name) and given.get("embed_norm"))
    given["self_cond_before_proj"] = bool(
        given.get("self_cond_before_proj") and given.get("self_cond")
    )
    # The tables are in the checkpoint; the files that they were initialised from may be gone.
    given["encoder_embed_path"] = given["decoder_embed_path"] = None

    def pick(config):
        names = {f.name for f in fields(config)} - {"_name"}
        return config(**{name: value for name, value in given.items() if name in names})

    model = pick(DifformerConfig)
    check_config(model)
    return ConvertedOptions(model, pick(DifformerLossConfig), pick(DiffusionTranslationConfig))


def convert_weights(
    state: Mapping[str, torch.Tensor], cfg: DifformerConfig
) -> dict[str, torch.Tensor]:
    """Rename the weights of an original state dict.

    Entries that are no weights (versions, and tables of sinusoidal positions) are dropped.

    Args:
        cfg: see `convert_options`.
    Raises:
        UserError: our model has no such weight.
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
            raise UserError(
                f"the checkpoint has a weight that this implementation does not know: {name}"
            )
        converted[prefixes[prefix] + name.removeprefix(prefix)] = tensor
    if "denoiser.output_projection.weight" not in converted:
        converted["denoiser.output_projection.weight"] = converted["denoiser.embed_tokens.weight"]
    return converted


def convert_checkpoint(path: str | PathLike) -> dict[str, Any]:
    """Read an original checkpoint, and convert it.

    Returns:
        a checkpoint of ours, to be saved. It has no optimizer state: training starts from it with
        --finetune-from-model.
    Raises:
        UserError: see `load_original`, `convert_options` and `convert_weights`.
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
