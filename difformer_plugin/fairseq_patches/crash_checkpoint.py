"""A user's mistake that shows in a training step leaves no crash.pt.

Fault: whatever is raised in a training step, fairseq writes the whole state to `crash.pt` in
--save-dir, for an analysis that an error of one line does not need.

Patch: it is not written while a UserError is handled.

Other tasks: the same; they raise none.

Drop it: when fairseq writes it for its own errors only.
"""

import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from fairseq.trainer import Trainer

from difformer_plugin.errors import UserError

CRASH = "crash.pt"


def _unless_a_mistake(original: Callable) -> Callable:
    @wraps(original)
    def save_checkpoint(self: Any, filename: str, *args: Any, **kwargs: Any) -> Any:
        if Path(filename).name == CRASH and isinstance(sys.exc_info()[1], UserError):
            return None
        return original(self, filename, *args, **kwargs)

    return save_checkpoint


def install() -> None:
    """Replace `Trainer.save_checkpoint`."""
    Trainer.save_checkpoint = _unless_a_mistake(Trainer.save_checkpoint)
