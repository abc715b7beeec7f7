"""A command with --use-ema gets the averaged weights of --store-ema from a checkpoint.

Fault: `fairseq-train --store-ema` stores an exponential moving average of the weights in every
checkpoint, but no command of fairseq's decodes with it.

Patch: `load_model_ensemble_and_task`, through which every command loads models, replaces the
weights of our models by the average if the command's task or its overrides say so. What the
training of the checkpoint was told does not count: `fairseq-train --use-ema` validates by the
average.

Other tasks: nothing changes, nor do models of other kinds, such as a teacher in the same ensemble.

Drop it: when fairseq can load the average by an option.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

from fairseq import checkpoint_utils

from difformer_plugin.checkpoints.ema import load_ema
from difformer_plugin.families.contract import is_diffusion_model


def _with_ema(original: Callable) -> Callable:
    @wraps(original)
    def load_model_ensemble_and_task(
        filenames: list[str],
        arg_overrides: Any = None,
        task: Any = None,
        strict: bool = True,
        suffix: str = "",
        *args: Any,
        **kwargs: Any,
    ) -> tuple[Any, Any, Any]:
        asked = getattr(getattr(task, "cfg", None), "use_ema", False)
        asked = (arg_overrides or {}).get("use_ema", asked)
        models, cfg, task = original(
            filenames, arg_overrides, task, strict, suffix, *args, **kwargs
        )
        if asked:
            file_of = checkpoint_utils.get_maybe_sharded_checkpoint_filename
            for path, model in zip(filenames, models):
                if is_diffusion_model(model):
                    load_ema(model, file_of(path, suffix, 0, 1))
        return models, cfg, task

    return load_model_ensemble_and_task


def install() -> None:
    """Replace `checkpoint_utils.load_model_ensemble_and_task`."""
    checkpoint_utils.load_model_ensemble_and_task = _with_ema(
        checkpoint_utils.load_model_ensemble_and_task
    )
