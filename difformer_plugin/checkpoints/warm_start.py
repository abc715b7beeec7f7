"""Initialise a diffusion model from its teacher: encoder, embedding tables and decoder layers.

A denoiser layer has the weights of a decoder layer, and tokens are embedded and scored by tables of
the same shapes. What the teacher has no counterpart for (the embedding of times,
self-conditioning, the length predictor) keeps its random initial values.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from difformer_plugin.checkpoints.fingerprint import KEY, check_dictionaries, check_table_sizes
from difformer_plugin.checkpoints.teacher import SIDES, Teacher
from difformer_plugin.errors import UserError
from difformer_plugin.options import flag

PARTS = ("encoder", "embeddings", "decoder")
# A model's own tables, and the teacher's that each is taken from.
TABLES = {
    "encoder.embed_tokens.weight": "encoder.embed_tokens.weight",
    "denoiser.embed_tokens.weight": "decoder.embed_tokens.weight",
    "denoiser.output_projection.weight": "decoder.output_projection.weight",
}
# The modules of each of the two other parts: own prefix -> the teacher's.
MODULES = {
    "encoder": {
        f"encoder.{module}.": f"encoder.{module}."
        for module in ("layers", "layer_norm", "embed_positions", "layernorm_embedding")
    },
    "decoder": {
        f"denoiser.{module}.": f"decoder.{module}."
        for module in ("layers", "layer_norm", "embed_positions")
    },
}
# Options of fairseq's Transformers that must agree, with fairseq's defaults.
SETTINGS: dict[str, dict[str, Any]] = {
    side: {
        f"{side}_attention_heads": 8,
        f"{side}_normalize_before": False,
        f"{side}_learned_pos": False,
        "no_token_positional_embeddings": False,
        "activation_fn": "relu",
    }
    for side in SIDES
}
SETTINGS["encoder"]["layernorm_embedding"] = False
SETTINGS["embeddings"] = {"no_scale_embedding": False}


@dataclass(frozen=True)
class Initialised:
    """What a model has from its teacher: tensors by part, names of fresh modules, remarks."""

    counts: dict[str, int]
    fresh: list[str]
    remarks: list[str]

    def __str__(self) -> str:
        taken = ", ".join(f"{part} {count} tensors" for part, count in self.counts.items())
        return "; ".join([taken, *self.remarks])


def parse_parts(text: str) -> tuple[str, ...]:
    """The parts that --init-parts names, in the order of PARTS.

    Raises:
        UserError: there is no such part, or none is named.
    """
    named = [part.strip() for part in text.split(",") if part.strip()]
    unknown = [part for part in named if part not in PARTS]
    if unknown or not named:
        raise UserError(
            f"--init-parts {text!r}: give one or more of {', '.join(PARTS)}, separated by commas"
        )
    return tuple(part for part in PARTS if part in named)


@torch.no_grad()
def initialise(
    model: nn.Module,
    teacher: Teacher,
    parts: tuple[str, ...],
    dictionaries: tuple[Any, Any],
) -> Initialised:
    """Copy parts of a teacher into a diffusion model; a part fits as a whole or not at all.

    A model with fewer layers than its teacher takes the first ones.

    Args:
        model: with the attributes `encoder`, `denoiser` and `cfg` (a NetworkConfig).
        parts: some of PARTS.
        dictionaries: the data's, of source and target.
    Raises:
        UserError: the teacher has other dictionaries, or a part does not fit; nothing is copied.
    """
    own = dict(model.named_parameters(remove_duplicate=False))
    remarks: list[str] = []
    try:
        _check_dictionaries(model, teacher, dictionaries)
        sources = {}
        for part in parts:
            _check_settings(model.cfg, teacher, part)
            found = _tables(own, teacher) if part == "embeddings" else _modules(own, teacher, part)
            sources[part] = found
            if part != "embeddings":
                remarks += _remarks(model.cfg, teacher, part)
    except UserError as error:
        raise UserError(f"--init-from-teacher {teacher.path}: {error}") from error
    for found in sources.values():
        for name, tensor in found.items():
            own[name].copy_(tensor)
    taken = {name for found in sources.values() for name in found}
    return Initialised(
        {part: len({id(own[name]) for name in found}) for part, found in sources.items()},
        sorted(Counter(_module(name) for name in own if name not in taken)),
        remarks,
    )


def _module(name: str) -> str:
    """The module that a fresh tensor is reported under."""
    return ".".join(name.split(".")[:2]) if name.count(".") > 1 else name.split(".")[0]


def _check_dictionaries(model: nn.Module, teacher: Teacher, dictionaries: tuple[Any, Any]) -> None:
    """Compare fingerprints, where the teacher is a diffusion model, and sizes otherwise."""
    check_table_sizes(teacher.weights, *map(len, dictionaries))
    if KEY in teacher.weights:
        tables = {
            own: teacher.weights[theirs]
            for own, theirs in TABLES.items()
            if theirs in teacher.weights
        }
        check_dictionaries(model, {KEY: teacher.weights[KEY], **tables})


def _check_settings(cfg: Any, teacher: Teacher, part: str) -> None:
    """Compare the options that shapes do not tell, and the dimensions."""
    compared = {
        name: (_own(cfg, name), teacher.settings.get(name, default))
        for name, default in SETTINGS[part].items()
    }
    if part == "embeddings":
        if reads_embeddings(cfg):
            raise UserError(
                "the embeddings cannot come from the teacher and from --encoder-embed-path or "
                "--decoder-embed-path as well: omit one of them, or leave embeddings out of "
                "--init-parts"
            )
        table = teacher.weights.get("encoder.embed_tokens.weight")
        if table is not None:
            compared["latent_dim"] = cfg.latent_dim, table.shape[1]
    else:
        ffn_dim, dim = teacher.weights[f"{part}.layers.0.fc1.weight"].shape
        compared["model_dim"] = cfg.model_dim, dim
        compared[f"{part}_ffn_embed_dim"] = _own(cfg, f"{part}_ffn_embed_dim"), ffn_dim
        layers, theirs = _own(cfg, f"{part}_layers"), _layers(teacher, part)
        compared[f"{part}_layers"] = layers, min(layers, theirs)
    differences = [
        f"{flag(name)} is {_shown(ours)} here and {_shown(theirs)} in the teacher"
        for name, (ours, theirs) in compared.items()
        if ours != theirs
    ]
    if differences:
        raise UserError(
            f"{', '.join(differences)}: give the teacher's values, or leave {part} out of "
            "--init-parts"
        )


def reads_embeddings(cfg: Any) -> bool:
    """Whether a configuration names a file of embeddings, on either side that it has."""
    return any(getattr(cfg, f"{side}_embed_path", None) for side in SIDES)


def _own(cfg: Any, name: str) -> Any:
    """A setting of the model; diffusion models always have positions."""
    return False if name == "no_token_positional_embeddings" else getattr(cfg, name)


def _shown(value: Any) -> str:
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value)


def _layers(teacher: Teacher, side: str) -> int:
    """The number of layers that the teacher has on one side."""
    numbers = {n.split(".")[2] for n in teacher.weights if n.startswith(f"{side}.layers.")}
    return len(numbers)


def _remarks(cfg: Any, teacher: Teacher, side: str) -> list[str]:
    ours, theirs = _own(cfg, f"{side}_layers"), _layers(teacher, side)
    return [f"the first {ours} of its {theirs} {side} layers"] if ours < theirs else []


def _modules(
    own: Mapping[str, nn.Parameter], teacher: Teacher, side: str
) -> dict[str, torch.Tensor]:
    """Own name -> the teacher's tensor, for the layers of one side and what belongs to them."""
    found: dict[str, torch.Tensor] = {}
    for prefix, theirs in MODULES[side].items():
        for name, parameter in own.items():
            if not name.startswith(prefix):
                continue
            tensor = teacher.weights.get(theirs + name.removeprefix(prefix))
            if tensor is None:
                raise UserError(
                    f"it has no {theirs + name.removeprefix(prefix)}, which the model needs: "
                    f"leave {side} out of --init-parts, or use another teacher"
                )
            if tensor.shape != parameter.shape:
                raise UserError(
                    f"{name} has shape {tuple(parameter.shape)} here and {tuple(tensor.shape)} in "
                    f"the teacher{_hint(name, side)}: give the teacher's sizes, or leave {side} "
                    "out of --init-parts"
                )
            found[name] = tensor
    _check_nothing_is_left(own, teacher, side)
    return found


def _hint(name: str, side: str) -> str:
    """The option that sets the size of a table of learned positions."""
    if ".embed_positions." not in name:
        return ""
    return f" ({'--max-source-positions' if side == 'encoder' else '--max-target-positions'})"


def _check_nothing_is_left(own: Mapping[str, nn.Parameter], teacher: Teacher, side: str) -> None:
    """Refuse layers that have more weights than ours, and would compute something else."""
    (prefix, theirs), *_ = MODULES[side].items()
    first = {n for n in teacher.weights if n.startswith(f"{theirs}0.")}
    extra = sorted(n for n in first if prefix + n.removeprefix(theirs) not in own)
    if extra:
        raise UserError(
            f"its layers have {extra[0]}, which layers of this model lack: leave {side} out of "
            "--init-parts, or use another teacher"
        )


def _tables(own: Mapping[str, nn.Parameter], teacher: Teacher) -> dict[str, torch.Tensor]:
    """Own name -> the teacher's table."""
    weights = teacher.weights
    adaptive = any(name.startswith("decoder.adaptive_softmax.") for name in weights)
    found: dict[str, torch.Tensor] = {}
    for name, theirs in TABLES.items():
        if name not in own:  # a model of joint sequences has one table
            continue
        tensor = weights.get(theirs)
        if tensor is None and "output_projection" in name and not adaptive:
            # Checkpoints of fairseq before 0.10 store a shared table once.
            tensor = weights.get("decoder.embed_tokens.weight")
        if tensor is None or tensor.shape != own[name].shape:
            shape = "none" if tensor is None else f"{tuple(tensor.shape)}"
            raise UserError(
                f"{name} has shape {tuple(own[name].shape)} here, and the teacher's {theirs} has "
                f"{shape}: leave embeddings out of --init-parts, or use another teacher"
            )
        found[name] = tensor
    for name, tensor in found.items():
        for other, other_tensor in found.items():
            if own[name] is own[other] and not torch.equal(tensor, other_tensor):
                raise UserError(
                    f"{TABLES[name]} and {TABLES[other]} differ in the teacher, but are one table "
                    "here: omit --share-all-embeddings and --share-decoder-input-output-embed as "
                    "the teacher did, or leave embeddings out of --init-parts"
                )
    return found


def encoder_parameters(model: nn.Module) -> list[nn.Parameter]:
    """The parameters of the part `encoder`: its layers and positions, without embeddings."""
    prefixes = tuple(MODULES["encoder"])
    return [p for name, p in model.named_parameters() if name.startswith(prefixes)]
