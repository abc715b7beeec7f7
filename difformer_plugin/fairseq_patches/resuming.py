"""Errors of resuming and fine-tuning are one line, and --store-ema may be added on resume.

Fault: fairseq ends in a traceback if the file of --finetune-from-model is missing, if a checkpoint
is of another model, optimizer or criterion, or of data that have changed since. It trains from the
start, silently, if the file of --restore-file is missing, and with other options of the model than
the checkpoint's, if only the shapes of the weights agree. With --store-ema it looks for the weights
of a checkpoint without an average where it has just deleted them.

Patch: for our tasks these errors are UserErrors, and the options that differ are named in a
warning. A checkpoint without an average begins one from its weights.

Other tasks: a checkpoint of a diffusion model is one line, and --store-ema can be added; nothing
else changes.

Drop it: when fairseq's errors name the remedy and end without a traceback.
"""

import logging
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from typing import Any

from fairseq import checkpoint_utils
from fairseq.file_io import PathManager
from fairseq.trainer import Trainer
from omegaconf import DictConfig

from difformer_plugin.errors import UserError
from difformer_plugin.fairseq_patches.foreign_tasks import model_class, name_of
from difformer_plugin.families.contract import DiffusionTask, is_family
from difformer_plugin.options import flag

logger = logging.getLogger(__name__)
DEFAULT_FILE = "checkpoint_last.pt"  # of --restore-file, in --save-dir
RESETS = ("reset_optimizer", "reset_lr_scheduler", "reset_meters", "reset_dataloader")


def check_files(cfg: Any) -> None:
    """Check that the files from which training is to begin exist, and that only one is named.

    Args:
        cfg: a CheckpointConfig.
    Raises:
        UserError: otherwise.
    """
    last = f"{cfg.save_dir}/{DEFAULT_FILE}"
    first_time = not PathManager.exists(last)
    if cfg.finetune_from_model is not None:
        if cfg.restore_file != DEFAULT_FILE:
            raise UserError(
                "--finetune-from-model and --restore-file both say where the weights come from: "
                "omit one of them"
            )
        if given := [f"--{name.replace('_', '-')}" for name in RESETS if cfg[name]]:
            raise UserError(
                f"--finetune-from-model resets all that {', '.join(given)} would: omit "
                f"{'it' if len(given) == 1 else 'them'}"
            )
        if first_time and not PathManager.exists(cfg.finetune_from_model):
            raise UserError(f"--finetune-from-model {cfg.finetune_from_model}: no such checkpoint")
    if cfg.restore_file != DEFAULT_FILE:
        if not PathManager.exists(cfg.restore_file):
            raise UserError(f"--restore-file {cfg.restore_file}: no such checkpoint")
    elif first_time and cfg.continue_once and not PathManager.exists(cfg.continue_once):
        raise UserError(f"--continue-once {cfg.continue_once}: no such checkpoint")


def _with_checked_files(original: Callable) -> Callable:
    @wraps(original)
    def load_checkpoint(cfg: Any, trainer: Any, **kwargs: Any) -> Any:
        if not isinstance(trainer.task, DiffusionTask):
            return original(cfg, trainer, **kwargs)
        check_files(cfg)
        try:
            return original(cfg, trainer, **kwargs)
        except RuntimeError as error:
            if "--reset-dataloader" not in str(error):
                raise
            raise UserError(
                "the training data or the sizes of batches have changed since the checkpoint, so "
                "that its position in them means nothing: begin an epoch with --reset-dataloader"
            ) from error

    return load_checkpoint


def _check_model(trainer: Any, path: str, state: dict[str, Any]) -> None:
    """Raise a UserError if just one of checkpoint and model is a diffusion model."""
    theirs = model_class(name_of(state["cfg"], "model")) if state.get("cfg") else None
    ours = model_class(name_of(trainer.cfg, "model"))
    if theirs and ours and is_family(theirs) != is_family(ours):
        raise UserError(
            f"{path} holds a {theirs.__name__}, and a {ours.__name__} is trained: give a "
            "checkpoint of the same --arch; a diffusion model begins with a Transformer's weights "
            "by --init-from-teacher"
        )


def other_options(theirs: Any, ours: Any) -> list[str]:
    """The options of a model that differ from a checkpoint's, as `--dropout 0.2 (was 0.1)`.

    An option that the checkpoint does not know is newer than it, and does not count.

    Args:
        theirs, ours: configurations of the model of the checkpoint, and of the one to be trained.
    """
    before, now = (
        own if isinstance(own, Mapping | DictConfig) else vars(own) for own in (theirs, ours)
    )
    return [
        f"{flag(name)} {now[name]} (was {before[name]})"
        for name in sorted(set(before) & set(now))
        if not name.startswith("_") and name != "arch" and now[name] != before[name]
    ]


@contextmanager
def _seen(see: Callable[[str, dict[str, Any]], None]) -> Iterator[None]:
    """Show every checkpoint that fairseq loads in the block to a function, before it is used."""
    load = checkpoint_utils.load_checkpoint_to_cpu

    def load_checkpoint_to_cpu(path: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        state = load(path, *args, **kwargs)
        see(path, state)
        return state

    checkpoint_utils.load_checkpoint_to_cpu = load_checkpoint_to_cpu
    try:
        yield
    finally:
        checkpoint_utils.load_checkpoint_to_cpu = load


def _with_reasons(original: Callable) -> Callable:
    @wraps(original)
    def load_checkpoint(self: Any, filename: str, *args: Any, **kwargs: Any) -> Any:
        ours = isinstance(self.task, DiffusionTask)

        def see(path: str, state: dict[str, Any]) -> None:
            _check_model(self, path, state)
            extra_state = state.get("extra_state") or {}
            if self.cfg.ema.store_ema and extra_state:
                extra_state.setdefault("ema", dict(state["model"]))
            if ours:
                # fairseq's crash.pt lacks it
                extra_state.setdefault("train_iterator", {"epoch": 1})
                trained = (state.get("cfg") or {}).get("model") or {}
                if others := other_options(trained, self.cfg.model):
                    logger.warning(
                        f"{path} was trained with other options of the model than those given now: "
                        f"{', '.join(others)}"
                    )

        with _seen(see):
            if not ours:
                return original(self, filename, *args, **kwargs)
            try:
                return original(self, filename, *args, **kwargs)
            except AssertionError as error:
                raise _mismatch(filename, error) from error
            except (ValueError, KeyError) as error:
                if isinstance(error, UserError):
                    raise
                raise UserError(
                    f"{filename}: its state of the optimizer or of the learning rate does not fit "
                    f"({str(error)[:160]}): give the options that it was trained with, or "
                    "--reset-optimizer --reset-lr-scheduler"
                ) from error

    return load_checkpoint


def _mismatch(path: str, error: AssertionError) -> Exception:
    """A UserError for fairseq's assertion that optimizer and criterion are the checkpoint's."""
    found = re.match(r"(Optimizer|Criterion) does not match.* (\S+) vs (\S+)$", str(error))
    if not found:
        return error
    what, theirs, ours = found.groups()
    return UserError(
        f"{path} was trained with the {what.lower()} {theirs}, and this is {ours}: give the same "
        "options, or --reset-optimizer to begin with a new state of the optimizer"
    )


def install() -> None:
    """Replace `checkpoint_utils.load_checkpoint` and `Trainer.load_checkpoint`."""
    checkpoint_utils.load_checkpoint = _with_checked_files(checkpoint_utils.load_checkpoint)
    Trainer.load_checkpoint = _with_reasons(Trainer.load_checkpoint)
