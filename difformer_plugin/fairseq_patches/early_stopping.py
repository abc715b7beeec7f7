"""--patience counts on where a training resumes.

Fault: fairseq keeps the best value and the number of validations since it in memory only, so that
a training that is stopped and resumed waits longer than one that is not.

Patch: our tasks' checkpoints hold both. They are read back, unless --reset-optimizer or
--reset-meters (or --finetune-from-model) has the best value forgotten.

Other tasks: nothing changes.

Drop it: when fairseq's checkpoints hold the state of `should_stop_early`.
"""

import sys
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any

from fairseq.trainer import Trainer

from difformer_plugin.families.contract import DiffusionTask

KEY = "early_stopping"  # in a checkpoint's extra state
NAMES = ("best", "num_runs")  # attributes of fairseq's function
# Importing the command here would change where other commands log to.
MODULES = ("fairseq_cli.train", "__main__")


def _functions() -> Iterator[Any]:
    """fairseq's `should_stop_early`, of each module that holds the running command."""
    for name in MODULES:
        module = sys.modules.get(name)
        if module is not None and "should_stop_early" in vars(module):
            yield vars(module)["should_stop_early"]


def state() -> dict[str, Any]:
    """The best value, and the number of validations since it; empty before the first one."""
    kept = [
        {name: vars(function)[name] for name in NAMES if name in vars(function)}
        for function in _functions()
    ]
    return next(filter(None, kept), {})


def restore(saved: dict[str, Any]) -> None:
    """Go on from what `state` returned."""
    for function in _functions():
        vars(function).update(saved)


def _saved(original: Callable) -> Callable:
    @wraps(original)
    def save_checkpoint(self: Any, filename: str, extra_state: dict[str, Any]) -> Any:
        if isinstance(self.task, DiffusionTask):
            extra_state = {**extra_state, KEY: state()}
        return original(self, filename, extra_state)

    return save_checkpoint


def _restored(original: Callable) -> Callable:
    @wraps(original)
    def load_checkpoint(
        self: Any,
        filename: str,
        reset_optimizer: bool = False,
        reset_lr_scheduler: bool = False,
        optimizer_overrides: Any = None,
        reset_meters: bool = False,
    ) -> Any:
        extra_state = original(
            self, filename, reset_optimizer, reset_lr_scheduler, optimizer_overrides, reset_meters
        )
        resets = reset_optimizer or reset_meters
        if isinstance(self.task, DiffusionTask) and extra_state and not resets:
            restore(extra_state.get(KEY) or {})
        return extra_state

    return load_checkpoint


def install() -> None:
    """Replace `Trainer.save_checkpoint` and `Trainer.load_checkpoint`."""
    Trainer.save_checkpoint = _saved(Trainer.save_checkpoint)
    Trainer.load_checkpoint = _restored(Trainer.load_checkpoint)
