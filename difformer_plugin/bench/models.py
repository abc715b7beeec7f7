"""Build models with random weights from options of fairseq-train."""

import contextlib
import io
from os import PathLike
from typing import Any

import torch
from fairseq import options, tasks
from fairseq.dataclass.configs import FairseqConfig
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq.models import ARCH_MODEL_REGISTRY, BaseFairseqModel
from fairseq.tasks import FairseqTask

from difformer_plugin.data.data_bin import check_folder
from difformer_plugin.errors import UserError
from difformer_plugin.families.contract import FAMILIES, Family

DIFFUSION = """
    --task diffusion_translation --pred-length-offset --encoder-learned-pos --decoder-learned-pos
"""
TRANSFORMER = """
    --task translation --arch transformer
    --criterion label_smoothed_cross_entropy --label-smoothing 0.1
"""
CMLM = """
    --task translation_lev --arch cmlm_transformer --criterion nat_loss
    --encoder-learned-pos --decoder-learned-pos
"""


def configure(data: str | PathLike, *arguments: str) -> FairseqConfig:
    """fairseq's configuration for options of fairseq-train.

    Args:
        data: a data-bin.
        arguments: options, several in a string.
    Raises:
        UserError: an option is unknown or has an impossible value.
    """
    arguments = [str(data), *(word for text in arguments for word in text.split())]
    parser, printed = options.get_training_parser(), io.StringIO()
    try:
        with contextlib.redirect_stderr(printed):
            parsed = options.parse_args_and_arch(parser, arguments)
    except SystemExit:  # only --model-options can be wrong: the other options are ours
        reason = printed.getvalue().rpartition("error: ")[2].strip()
        raise UserError(f"--model-options: {reason}; give options of fairseq-train") from None
    return convert_namespace_to_omegaconf(parsed)


def random_model(
    data: str | PathLike, seed: int, *arguments: str
) -> tuple[FairseqConfig, FairseqTask, BaseFairseqModel]:
    """A model with random weights, with its configuration and task.

    Embeddings are shared as far as the dictionaries allow.

    Args:
        seed: of the weights.
        arguments: see `configure`.
    """
    cfg = configure(data, *arguments)
    check_folder(str(data), cfg.task.source_lang, cfg.task.target_lang)
    task = tasks.setup_task(cfg.task)
    cfg.model.share_all_embeddings = task.source_dictionary == task.target_dictionary
    cfg.model.share_decoder_input_output_embed = True
    torch.manual_seed(seed)
    return cfg, task, task.build_model(cfg.model)


def diffusion_options(arch: str, model_options: str | None) -> str:
    """Options of fairseq-train for a diffusion model of a named size.

    Args:
        model_options: more options, from the user.
    Raises:
        UserError: no diffusion model has this --arch.
    """
    known = {
        name: kind
        for name, kind in ARCH_MODEL_REGISTRY.items()
        if issubclass(kind, tuple(FAMILIES))
    }
    if arch not in known:
        raise UserError(f"--arch {arch}: no such diffusion model; there are {', '.join(known)}")
    family = known[arch]
    own = f"--arch {arch} --criterion {family.criterion} {family.published_options}"
    return f"{DIFFUSION} {own} {model_options or ''}"


def size_options(model: Family) -> str:
    """Options that give one of fairseq's Transformers the size of a diffusion model."""
    cfg: Any = model.cfg
    sizes = [f"--activation-fn {cfg.activation_fn}"]
    for side in ("encoder", "decoder"):
        own = model.side_sizes(side)
        sizes += [
            f"--{side}-embed-dim {cfg.model_dim}",
            f"--{side}-layers {own['layers']}",
            f"--{side}-ffn-embed-dim {own['ffn_embed_dim']}",
            f"--{side}-attention-heads {own['attention_heads']}",
        ]
        sizes += [f"--{side}-normalize-before"] * own["normalize_before"]
    return " ".join(sizes)
