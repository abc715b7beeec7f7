"""Initialise a diffusion model from its teacher: encoder, embedding tables and decoder layers.

Tokens are embedded and scored by tables of the same shapes. Which layers are taken from which, a
family says; the layers of an encoder and a denoiser are those of the teacher's encoder and decoder.
What the teacher has no counterpart for (the embedding of times, self-conditioning, the length
predictor) keeps its random initial values.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from difformer_plugin.checkpoints.counterparts import (
    Counterpart,
    check_embeddings,
    check_layers,
    count_layers,
)
from difformer_plugin.checkpoints.fingerprint import KEY, check_dictionaries, check_table_sizes
from difformer_plugin.checkpoints.teacher import Teacher
from difformer_plugin.errors import UserError

PARTS = ("encoder", "embeddings", "decoder")
# A model's own tables, and the teacher's that each is taken from.
TABLES = {
    "encoder.embed_tokens.weight": "encoder.embed_tokens.weight",
    "denoiser.embed_tokens.weight": "decoder.embed_tokens.weight",
    "denoiser.output_projection.weight": "decoder.output_projection.weight",
}


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
        model: with the attributes `cfg` (a DenoiserConfig) and `teacher_layers`.
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
            if part == "embeddings":
                check_embeddings(model.cfg, teacher)
                sources[part] = _tables(own, teacher)
            else:
                layers = model.teacher_layers(part)
                check_layers(model.cfg, teacher, part, layers)
                sources[part] = _layers(own, teacher, part, layers)
                remarks += _remarks(teacher, layers)
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


def _remarks(teacher: Teacher, layers: Counterpart) -> list[str]:
    ours, theirs = layers.count, count_layers(teacher, layers.side)
    return [f"the first {ours} of its {theirs} {layers.side} layers"] if ours < theirs else []


def _layers(
    own: Mapping[str, nn.Parameter], teacher: Teacher, part: str, layers: Counterpart
) -> dict[str, torch.Tensor]:
    """Own name -> the teacher's tensor, for the layers of one part and what belongs to them."""
    found: dict[str, torch.Tensor] = {}
    for prefix, theirs in layers.prefixes.items():
        for name, parameter in own.items():
            if not name.startswith(prefix):
                continue
            tensor = teacher.weights.get(theirs + name.removeprefix(prefix))
            if tensor is None:
                raise UserError(
                    f"it has no {theirs + name.removeprefix(prefix)}, which the model needs: "
                    f"leave {part} out of --init-parts, or use another teacher"
                )
            if tensor.shape != parameter.shape:
                raise UserError(
                    f"{name} has shape {tuple(parameter.shape)} here and {tuple(tensor.shape)} in "
                    f"the teacher{_hint(name, layers)}: give the teacher's sizes, or leave {part} "
                    "out of --init-parts"
                )
            found[name] = tensor
    _check_nothing_is_left(found, teacher, part, layers)
    return found


def _hint(name: str, layers: Counterpart) -> str:
    """The option that sets the size of a table of learned positions."""
    if ".embed_positions." not in name:
        return ""
    side = "source" if layers.own_side == "encoder" else "target"
    return f" (--max-{side}-positions)"


def _check_nothing_is_left(
    found: Mapping[str, torch.Tensor], teacher: Teacher, part: str, layers: Counterpart
) -> None:
    """Refuse layers that have more weights than ours, and would compute something else."""
    first = f"{layers.side}.layers.0."
    taken = {id(tensor) for tensor in found.values()}
    left_out = tuple(first + prefix for prefix in layers.left_out)
    extra = sorted(
        name
        for name, tensor in teacher.weights.items()
        if name.startswith(first) and id(tensor) not in taken and not name.startswith(left_out)
    )
    if extra:
        raise UserError(
            f"its layers have {extra[0]}, which layers of this model lack: leave {part} out of "
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
    prefixes = tuple(model.teacher_layers("encoder").prefixes)
    return [p for name, p in model.named_parameters() if name.startswith(prefixes)]
