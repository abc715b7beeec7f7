"""A teacher's checkpoint: its weights and the options of its model, read without running code."""

import argparse
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from difformer_plugin.checkpoints.loading import load_weights_only
from difformer_plugin.errors import UserError

SIDES = ("encoder", "decoder")


@dataclass(frozen=True)
class Teacher:
    """A Transformer to start from.

    Attributes:
        path: its checkpoint.
        weights: its state dict, under the names of fairseq's Transformers.
        settings: the options of its model.
        fingerprint: a hash of its weights.
    """

    path: str
    weights: dict[str, torch.Tensor]
    settings: dict[str, Any]
    fingerprint: str


def load_teacher(path: str | os.PathLike) -> Teacher:
    """Read a teacher's checkpoint without running code from it.

    Raises:
        UserError: the file is missing or unreadable, or holds no Transformer.
    """
    try:
        state = load_weights_only(path)
    except UserError as error:
        raise UserError(f"--init-from-teacher: {error}") from error
    try:
        model_cfg = state["args"] if state.get("args") else state["cfg"]["model"]
        settings = vars(model_cfg) if isinstance(model_cfg, argparse.Namespace) else dict(model_cfg)
        weights = {
            _fairseq_name(name): value
            for name, value in state["model"].items()
            if torch.is_tensor(value) and not name.endswith("_extra_state")
        }
    except (AttributeError, KeyError, TypeError) as error:
        raise UserError(
            f"--init-from-teacher {path} holds no fairseq model (no 'model' with its 'cfg' or "
            "'args')"
        ) from error
    missing = [side for side in SIDES if f"{side}.layers.0.fc1.weight" not in weights]
    if missing:
        raise UserError(
            f"--init-from-teacher {path} is not an encoder-decoder Transformer of fairseq's (no "
            f"{missing[0]}.layers): give one, such as --arch transformer"
        )
    return Teacher(str(path), weights, settings, _fingerprint(weights))


def _fairseq_name(name: str) -> str:
    """The name of a weight in fairseq's Transformers; in ours the decoder is called denoiser."""
    prefix = "denoiser."
    return f"decoder.{name.removeprefix(prefix)}" if name.startswith(prefix) else name


def _fingerprint(weights: Mapping[str, torch.Tensor]) -> str:
    """A 48-bit hash of weights, as hexadecimal digits."""
    digest = hashlib.blake2b(digest_size=6)
    for name in sorted(weights):
        digest.update(name.encode())
        digest.update(weights[name].detach().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
