"""Save checkpoints so that a full disk never leaves half a file under the final name."""

import os
from typing import Any

import torch

from difformer_plugin.errors import UserError

SAVE_AGAIN = "free some space and run the same command again"


class CheckpointWriteError(UserError, OSError):
    """The file could not be written; an older one of that name is unchanged."""


def save_atomically(checkpoint: Any, path: str | os.PathLike, remedy: str = SAVE_AGAIN) -> None:
    """`torch.save` to a temporary file that is renamed when it is complete.

    A link stays a link, to a new file; a device or a pipe is written to as it is.

    Args:
        remedy: what the error tells the user to do, unless the folder or the permission is wrong.
    Raises:
        CheckpointWriteError: a UserError; the temporary file is removed.
    """
    in_place = os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path)
    target = path if in_place else os.path.realpath(path)
    temporary = target if in_place else f"{target}.tmp"
    try:
        with open(temporary, "wb") as file:
            torch.save(checkpoint, file)
        if not in_place:
            os.replace(temporary, target)
    except (OSError, RuntimeError) as error:
        if isinstance(error, (FileNotFoundError, IsADirectoryError, PermissionError)):
            remedy = "name a file in a folder that exists and that you may write to"
        raise CheckpointWriteError(
            f"{path} could not be written ({_first_line(error)}): {remedy}"
        ) from error
    finally:  # also where the user interrupts it
        if not in_place and os.path.isfile(temporary):
            os.remove(temporary)


def _first_line(error: BaseException) -> str:
    """The first line of the OSError that caused an error, or of the error itself."""
    while error.__context__ is not None and not isinstance(error, OSError):
        error = error.__context__
    return str(error).splitlines()[0][:160] if str(error) else type(error).__name__
