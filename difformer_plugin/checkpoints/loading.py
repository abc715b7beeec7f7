"""Load checkpoints without running code from them.

fairseq's checkpoints hold more than tensors: options in an `argparse.Namespace`, and the NumPy
numbers and arrays in which its meters count. Weights-only loading accepts exactly these.
"""

import argparse
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch

from difformer_plugin.checkpoints.exported import is_exported, read_exported
from difformer_plugin.errors import UserError

# what torch.load raises for a file that is not a checkpoint, or asks for code
LOAD_ERRORS = (
    pickle.UnpicklingError,
    RuntimeError,
    EOFError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    IndexError,
)
FILE_SIGNATURES = (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")  # zip, pickle 2 to 5


class MissingCheckpointError(UserError, FileNotFoundError):
    """There is no file of this name."""


class UnreadableCheckpointError(UserError, pickle.UnpicklingError):
    """The file is not a checkpoint, is truncated, or asks to run code."""


def _plain_types() -> list:
    """The classes and functions that rebuild plain data, under the names of NumPy 1 and 2."""
    array: Any = np.zeros(1).__reduce__()[0]
    scalar: Any = np.float64(0).__reduce__()[0]
    dtypes = {type(np.dtype(kind)) for kind in (np.int32, np.int64, np.float32, np.float64)}
    before_numpy_2 = [
        (function, f"numpy.core.multiarray.{function.__name__}") for function in (array, scalar)
    ]
    return [argparse.Namespace, np.ndarray, np.dtype, array, scalar, *before_numpy_2, *dtypes]


def allow_plain_types() -> None:
    """Let weights-only loading accept what fairseq's checkpoints hold beside tensors.

    The permission is the process's and stays. torch's context manager would not do: on exit it
    also withdraws what was allowed before.
    """
    torch.serialization.add_safe_globals(_plain_types())


def load_weights_only(path: str | os.PathLike, memory_map: bool = False) -> Any:
    """Load a checkpoint, or an exported model, onto the CPU without running code from it.

    Args:
        memory_map: leave tensors on the disk until they are used, if the file's format allows it.
    Raises:
        MissingCheckpointError, UnreadableCheckpointError: both are UserErrors.
    """
    if not os.path.isfile(path):
        raise MissingCheckpointError(f"{path}: no such checkpoint")
    if is_exported(path):
        return read_exported(path)
    allow_plain_types()
    if memory_map:
        try:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except (*LOAD_ERRORS, OSError):
            pass  # an older format, or a bad file, of which the next attempt says what is wrong
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except LOAD_ERRORS as error:
        raise load_error(path, error) from error


def looks_like_a_checkpoint(path: str | os.PathLike) -> bool:
    """Whether a file starts with the signature of a zip file or a pickle, which torch writes."""
    with Path(path).open("rb") as file:
        return file.read(2) in FILE_SIGNATURES


def load_error(path: str | os.PathLike, error: Exception) -> UnreadableCheckpointError:
    """Explain one of LOAD_ERRORS in a line: what is wrong with the file, and what to do."""
    text = str(error)
    if "difformer.modules" in text:
        return UnreadableCheckpointError(
            f"{path} is a checkpoint of the authors' implementation: convert it first with "
            "`difformer convert IN OUT`"
        )
    if not looks_like_a_checkpoint(path):
        return UnreadableCheckpointError(
            f"{path} is not a readable checkpoint, but a file of another kind"
        )
    if "GLOBAL" in text or "Unsupported class" in text:
        reason = next((line.strip() for line in text.splitlines() if "GLOBAL" in line), "")
        return UnreadableCheckpointError(
            f"{path} is refused: its pickle asks for code that a checkpoint does not need; load "
            f"only what can be read without running code ({reason[:200]})"
        )
    detail = text.splitlines()[0][:120] if text else type(error).__name__
    return UnreadableCheckpointError(
        f"{path} is not a readable checkpoint (truncated, or of another kind): copy it again or "
        f"use another one ({detail})"
    )
