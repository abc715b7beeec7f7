"""A user's mistake is one line in fairseq's commands too, not a traceback.

Fault: fairseq's commands end in a traceback whatever went wrong, and hydra shortens it to a hint.

Patch: an exception hook prints a UserError, found anywhere in the chain of causes or in another
process of the training, and an OSError, such as a missing file, as `error: ...`. HYDRA_FULL_ERROR
makes hydra leave errors to the hook.

Other tasks: OSErrors in `fairseq-*` commands are one line as well, since --save-dir and --path are
opened before the task is known. Other programs keep their tracebacks: the hook is not installed.

Drop it: when fairseq's commands print expected errors themselves.
"""

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from torch.multiprocessing import ProcessRaisedException

from difformer_plugin.errors import UserError

Hook = Callable[[type[BaseException], BaseException, TracebackType | None], object]


def one_line_hook(original: Hook) -> Hook:
    """An exception hook that prints what a user can mend, and leaves the rest to another one."""

    def excepthook(
        kind: type[BaseException], error: BaseException, traceback: TracebackType | None
    ) -> None:
        line = _one_line(error)
        if line is None:
            original(kind, error, traceback)
        else:
            print(f"error: {line}", file=sys.stderr)

    return excepthook


def _one_line(error: BaseException) -> str | None:
    """What a user needs to read of an error, or None if it is a bug and wants a traceback."""
    if isinstance(error, ProcessRaisedException):  # holds the other process's traceback as text
        kinds: list[type] = [UserError, *UserError.__subclasses__()]
        names = "|".join(kind.__name__ for kind in kinds)
        lines = re.findall(rf"^[\w.]+\.(?:{names}): (.*)", str(error), re.MULTILINE)
        return lines[-1] if lines else None
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, UserError):
        cause = cause.__cause__ or cause.__context__
    if cause is None and isinstance(error, OSError):
        cause = error
    return None if cause is None else str(cause)


def _runs_fairseq() -> bool:
    """Whether this program is one of fairseq's commands."""
    return Path(sys.argv[0]).name.startswith("fairseq") or "fairseq_cli" in sys.argv[0]


def install() -> None:
    """Set the exception hook, if this program is one of fairseq's commands."""
    if _runs_fairseq():
        sys.excepthook = one_line_hook(sys.excepthook)
        os.environ.setdefault("HYDRA_FULL_ERROR", "1")
