"""A full disk leaves the last complete checkpoint, no partial file, and one line of error.

Fault: when writing fails, `torch_persistent_save` waits and appends to the partial file twice
more, logs a traceback and leaves the partial file behind. The copies to the other names
(`checkpoint_best.pt`, `checkpoint_last.pt`) overwrite in place, so that a full disk destroys them.

Patch: both write a temporary file beside the target, rename it when it is complete and remove it
when writing fails.

Other tasks: the files have the same names and contents. Asynchronous writing, remote paths and
`PathManager.copy` outside `checkpoint_utils` are left as they are; the errors are OSErrors too.

Drop it: when fairseq removes partial files and copies checkpoints under a temporary name.
"""

import os
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from fairseq import checkpoint_utils
from fairseq.file_io import PathManager

from difformer_plugin.checkpoints.saving import CheckpointWriteError, save_atomically

RESUME = (
    "free some space and run the same command again, which resumes from the last whole checkpoint"
)


def _save_atomically(original: Callable) -> Callable:
    @wraps(original)
    def torch_persistent_save(obj: Any, filename: str, async_write: bool = False) -> None:
        if async_write or PathManager.path_requires_pathmanager(filename):
            original(obj, filename, async_write)
        else:
            save_atomically(obj, filename, RESUME)

    return torch_persistent_save


class AtomicPathManager(PathManager):
    """fairseq's PathManager, whose copies of local files are atomic."""

    @staticmethod
    def copy(src_path: str, dst_path: str, overwrite: bool = False) -> bool:
        """Copy to a temporary file and rename it.

        Raises:
            CheckpointWriteError: the old file of that name is unchanged.
        """
        if not overwrite or PathManager.path_requires_pathmanager(dst_path):
            return PathManager.copy(src_path, dst_path, overwrite)
        temporary = f"{dst_path}.tmp"
        try:
            PathManager.copy(src_path, temporary, overwrite=True)
            os.replace(temporary, dst_path)
        except OSError as error:
            raise CheckpointWriteError(
                f"{dst_path} could not be written ({error.strerror}): {RESUME}"
            ) from error
        finally:
            Path(temporary).unlink(missing_ok=True)
        return True


def install() -> None:
    """Replace `torch_persistent_save` and `PathManager` in `checkpoint_utils`."""
    checkpoint_utils.torch_persistent_save = _save_atomically(
        checkpoint_utils.torch_persistent_save
    )
    checkpoint_utils.PathManager = AtomicPathManager
