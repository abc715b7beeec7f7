"""Checkpoints load under torch 2.6 and later, weights only, and a bad file is one line.

Fault: fairseq calls `torch.load` with its default, which since torch 2.6 is weights-only loading.
That refuses every checkpoint of fairseq's, because it holds an `argparse.Namespace` and NumPy
numbers. A damaged or missing file ends in a traceback.

Patch: the few types that rebuild plain data are allowed; nothing else is, so that a checkpoint
still cannot run code. `load_checkpoint_to_cpu` raises a UserError where it would have failed.

Other tasks: their checkpoints load as well. The errors for missing and unreadable files are
FileNotFoundErrors and UnpicklingErrors too; those for remote paths are fairseq's own.

Drop it: when fairseq allows these types itself (passing `weights_only=False`, as its main branch
does, would instead run whatever code is in the file).
"""

import os
from collections.abc import Callable
from functools import wraps
from typing import Any

from fairseq import checkpoint_utils

from difformer_plugin.checkpoints.loading import (
    LOAD_ERRORS,
    MissingCheckpointError,
    UnreadableCheckpointError,
    allow_plain_types,
    load_error,
)


def _explain_errors(original: Callable) -> Callable:
    @wraps(original)
    def load_checkpoint_to_cpu(path: str, *args: Any, **kwargs: Any) -> dict:
        try:
            state = original(path, *args, **kwargs)
        except (FileNotFoundError, IsADirectoryError) as error:
            raise MissingCheckpointError(f"{path}: no such checkpoint") from error
        except LOAD_ERRORS as error:
            if not os.path.isfile(path):
                raise  # a remote path
            raise load_error(path, error) from error
        if "model" not in state or not (state.get("args") or state.get("cfg")):
            raise UnreadableCheckpointError(
                f"{path} holds no fairseq model (no 'model' with its 'cfg' or 'args')"
            )
        return state

    return load_checkpoint_to_cpu


def install() -> None:
    """Allow the types and replace `checkpoint_utils.load_checkpoint_to_cpu`."""
    allow_plain_types()
    checkpoint_utils.load_checkpoint_to_cpu = _explain_errors(
        checkpoint_utils.load_checkpoint_to_cpu
    )
