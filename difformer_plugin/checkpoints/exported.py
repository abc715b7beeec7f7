"""Exported models: weights as safetensors, beside their configuration as JSON.

A folder holds `model.safetensors`, `config.json`, the two dictionaries, and what turns raw text
into subwords (`data.pipeline`). Here its weights and configuration are written and read.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from difformer_plugin.checkpoints.saving import SAVE_AGAIN, CheckpointWriteError
from difformer_plugin.errors import UserError

WEIGHTS, CONFIG = "model.safetensors", "config.json"
SUFFIX = ".safetensors"
FORMAT = "1"


def is_exported(path: str | os.PathLike) -> bool:
    """Whether a file of weights is one of an exported model."""
    return str(path).endswith(SUFFIX)


def write_weights(state: Mapping[str, Any], path: str | os.PathLike) -> None:
    """Write a model's state dict as safetensors.

    A tensor that has several names is written once. State that is a dictionary of tensors is
    written tensor by tensor.

    Raises:
        UserError: the state holds something else than tensors.
        CheckpointWriteError: the disk is full, for example.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    tensors: dict[str, torch.Tensor] = {}
    aliases: dict[str, str] = {}  # name -> the name under which its tensor is written
    groups: dict[str, list[str]] = {}  # name of a dictionary -> its keys
    first: dict[Any, str] = {}  # place in the memory -> name
    for name, value in state.items():
        if isinstance(value, Mapping):
            groups[name] = list(value)
        parts = value if name in groups else {"": value}
        for key, tensor in parts.items():
            if not torch.is_tensor(tensor):
                raise UserError(f"{name} is not a tensor: such a checkpoint cannot be exported")
            full = f"{name}.{key}" if name in groups else name
            place = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
            if tensor.numel() and place in first:
                aliases[full] = first[place]
            else:
                first[place] = full
                tensors[full] = tensor.detach().contiguous().clone()
    metadata = {"format": "pt", "version": FORMAT}
    metadata |= {"aliases": json.dumps(aliases), "groups": json.dumps(groups)}
    Path(path).touch()  # with the usual permissions, which the library would restrict to the owner
    mode = Path(path).stat().st_mode
    try:
        save_file(tensors, path, metadata)
    except SafetensorError as error:
        raise CheckpointWriteError(
            f"{path} could not be written ({error}): {SAVE_AGAIN}"
        ) from error
    Path(path).chmod(mode)


def read_weights(path: str | os.PathLike) -> dict[str, Any]:
    """Read what `write_weights` has written, onto the CPU.

    Raises:
        UserError: the file is missing, damaged, or another one.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise UserError(f"{path}: no such checkpoint") from None
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"{path} is not a readable safetensors file: copy it again ({error})"
        ) from None
    try:
        aliases, groups = (json.loads(metadata[name]) for name in ("aliases", "groups"))
        tensors |= {name: tensors[other] for name, other in aliases.items()}
        state: dict[str, Any] = dict(tensors)
        for name, keys in groups.items():
            state[name] = {key: state.pop(f"{name}.{key}") for key in keys}
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError):
        raise UserError(
            f"{path} was not written by `difformer export`: give a folder that was, or a checkpoint"
        ) from None
    return state


def read_exported(path: str | os.PathLike) -> dict[str, Any]:
    """Read an exported model as fairseq's checkpoints are laid out, without an optimizer's state.

    Args:
        path: `model.safetensors`; `config.json` is beside it.
    Raises:
        UserError: a file is missing, damaged, or another one.
    """
    state, config = read_weights(path), Path(path).parent / CONFIG
    try:
        table = json.loads(config.read_text("utf-8"))
        cfg, training = dict(table["cfg"]), dict(table["training"])
        updates = int(training["num_updates"])
    except OSError:
        raise UserError(f"{config}: no such file; copy the whole exported folder") from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise UserError(f"{config} is damaged: copy the exported folder again") from None
    return {
        "args": None,
        "cfg": cfg,
        "model": state,
        "optimizer_history": [
            {
                "criterion_name": training.get("criterion", ""),
                "optimizer_name": "none",
                "lr_scheduler_state": {},
                "num_updates": updates,
            }
        ],
        "task_state": {},
        "extra_state": {"epoch": 0, "metrics": {}, "train_iterator": {"epoch": 1}},
        "last_optimizer_state": None,
    }
