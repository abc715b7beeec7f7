"""Average the weights of several checkpoints of one training."""

import math
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from difformer_plugin.checkpoints.ema import ema_weights
from difformer_plugin.checkpoints.fingerprint import KEY as DICTIONARIES
from difformer_plugin.checkpoints.loading import load_weights_only
from difformer_plugin.errors import UserError

# What fairseq names the checkpoints of a --save-dir: by epoch, by epoch and updates, best, last.
# If a checkpoint is there under several names, the first in this order is kept.
NAMES = (r"checkpoint\d+", r"checkpoint_\d+_\d+", r"checkpoint\.best_.*", r"checkpoint_(best|last)")
EXTRA_STATE = "_extra_state"  # how torch's keys end for a module's state that is not a weight


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint file of a --save-dir, with its number of updates and its validation metric."""

    path: Path
    updates: int
    metric_name: str
    maximize: bool
    metric: float | None  # None if the checkpoint was saved without validation

    def __str__(self) -> str:
        metric = "no metric" if self.metric is None else f"{self.metric_name} {self.metric:g}"
        return f"{self.path.name}  {self.updates:,} updates  {metric}"


def list_checkpoints(folder: str | os.PathLike) -> list[Checkpoint]:
    """The checkpoints of a --save-dir, newest first, each number of updates once.

    Raises:
        UserError: there is no such folder, or a file is not a checkpoint of a training.
    """
    found: dict[int, Checkpoint] = {}
    for path in checkpoint_files(folder):
        checkpoint = read_checkpoint(path)
        found.setdefault(checkpoint.updates, checkpoint)
    return [found[updates] for updates in sorted(found, reverse=True)]


def checkpoint_files(folder: str | os.PathLike) -> list[Path]:
    """The files in a folder that are named as fairseq names checkpoints, in the order of NAMES.

    Raises:
        UserError: there is no such folder.
    """
    if not Path(folder).is_dir():
        raise UserError(f"{folder}: no such folder; name the --save-dir of fairseq-train")
    paths = sorted(Path(folder).glob("checkpoint*.pt"))
    return [path for name in NAMES for path in paths if re.fullmatch(name, path.stem)]


def read_checkpoint(path: str | os.PathLike) -> Checkpoint:
    """Read the number of updates and the metric from a checkpoint file.

    Raises:
        UserError: the file cannot be read, or is not a checkpoint of fairseq-train.
    """
    state = load_weights_only(path, memory_map=True)
    try:
        options = state["cfg"]["checkpoint"] if state.get("cfg") else vars(state["args"])
        updates = int(state["optimizer_history"][-1]["num_updates"])
        metric = state["extra_state"].get("val_loss")
        name = options["best_checkpoint_metric"]
        maximize = bool(options["maximize_best_checkpoint_metric"])
    except (KeyError, IndexError, TypeError, AttributeError):
        raise UserError(f"{path} is not a checkpoint of fairseq-train") from None
    known = metric is not None and math.isfinite(metric)
    return Checkpoint(Path(path), updates, name, maximize, float(metric) if known else None)


def choose_newest(
    found: list[Checkpoint], number: int, folder: str | os.PathLike
) -> list[Checkpoint]:
    """The `number` checkpoints with the most updates.

    Args:
        found: what `list_checkpoints` returned for `folder`.
    Raises:
        UserError: there are fewer.
    """
    if len(found) < number:
        raise UserError(
            f"{folder} has {len(found)} checkpoints, not {number}: average fewer, or train without "
            f"--no-epoch-checkpoints and with --keep-last-epochs {number} or more, or none"
        )
    return found[:number]


def choose_best(
    found: list[Checkpoint], number: int, folder: str | os.PathLike
) -> list[Checkpoint]:
    """The `number` checkpoints with the best metric, best first; ties keep the newer first.

    Args:
        found: what `list_checkpoints` returned for `folder`.
    Raises:
        UserError: there are fewer with a metric, or they have different metrics.
    """
    scored = [
        (checkpoint.metric, checkpoint) for checkpoint in found if checkpoint.metric is not None
    ]
    if len(scored) < number:
        raise UserError(
            f"{folder} has {len(scored)} checkpoints with a metric, not {number}: average fewer, "
            f"or train with a valid set and --keep-best-checkpoints {number} or more"
        )
    metrics = {(checkpoint.metric_name, checkpoint.maximize) for _, checkpoint in scored}
    if len(metrics) > 1:
        names = ", ".join(sorted(f"{name} ({'max' if up else 'min'})" for name, up in metrics))
        raise UserError(f"{folder} has checkpoints with different metrics ({names}): use --last")
    sign = -1 if scored[0][1].maximize else 1
    return [
        checkpoint for _, checkpoint in sorted(scored, key=lambda pair: sign * pair[0])[:number]
    ]


def average(
    chosen: list[Checkpoint],
    progress: Callable[[list[Checkpoint]], Iterable[Checkpoint]] = iter,
    use_ema: bool = False,
) -> dict[str, Any]:
    """Average checkpoints into one that fairseq can load, without an optimiser's state.

    Weights are summed in float64 and get their own type again. What is not a weight (integers, a
    module's extra state such as the rescaling factor) is taken from the newest checkpoint.

    Args:
        chosen: at least one; the sum and one checkpoint at a time are in memory.
        progress: wraps the iteration over them, as tqdm does.
        use_ema: average the moving averages that --store-ema keeps, not the weights themselves.
    Raises:
        UserError: they are of different models, or one has weights that are NaN or, with
            `use_ema`, no moving average.
    """
    latest = max(chosen, key=lambda checkpoint: checkpoint.updates)
    result = load_weights_only(latest.path, memory_map=True)
    weights_of = ema_weights if use_ema else _own_weights
    template = weights_of(result, latest.path)
    sums = {
        name: torch.zeros_like(tensor, dtype=torch.float64)
        for name, tensor in template.items()
        if torch.is_tensor(tensor) and tensor.is_floating_point() and not name.endswith(EXTRA_STATE)
    }
    for checkpoint in progress(chosen):
        state = weights_of(load_weights_only(checkpoint.path, memory_map=True), checkpoint.path)
        check_same_model(state, template, checkpoint.path, latest.path)
        for name in sums:
            if torch.isnan(state[name]).any():
                raise UserError(
                    f"{checkpoint.path} has weights that are NaN ({name}), as after a training "
                    "that has diverged: leave it out"
                )
            sums[name] += state[name]
    return {
        "args": result.get("args"),
        "cfg": result.get("cfg"),
        "model": _means(sums, template, len(chosen)),
        "optimizer_history": [{**result["optimizer_history"][-1]}],
        "last_optimizer_state": None,
        "task_state": result.get("task_state", {}),
        "extra_state": {
            "train_iterator": result["extra_state"].get("train_iterator", {"epoch": 1}),
            "val_loss": None,
            "mean_of": [
                {"file": each.path.name, "updates": each.updates, each.metric_name: each.metric}
                for each in chosen
            ],
        },
    }


def _own_weights(checkpoint: dict[str, Any], path: Path) -> dict[str, Any]:
    """The state dict of the model that was trained."""
    return checkpoint["model"]


def _means(sums: dict[str, torch.Tensor], template: dict[str, Any], number: int) -> dict[str, Any]:
    """The averaged state dict. Consumes `sums`, so that the memory is freed on the way.

    Tensors that the template shares between names stay shared, and so are written once.
    """
    means: dict[str, Any] = {}
    shared: dict[tuple, torch.Tensor] = {}
    for name, tensor in template.items():
        if name not in sums:
            means[name] = tensor.clone() if torch.is_tensor(tensor) else tensor
            continue
        mean = (sums.pop(name) / number).to(tensor.dtype)
        place = (tensor.data_ptr(), tensor.shape, tensor.stride())
        twin = shared.setdefault(place, mean)
        means[name] = twin if torch.equal(twin, mean) else mean
    return means


def check_same_model(
    state: dict[str, Any],
    template: dict[str, Any],
    path: str | os.PathLike,
    template_path: str | os.PathLike,
) -> None:
    """Check that two state dicts have the same names, shapes and dictionaries.

    Raises:
        UserError: they differ; it names both files and the first difference.
    """
    both = f"{path} and {template_path}"
    if unmatched := sorted(set(state) ^ set(template)):
        raise UserError(f"{both} are of different models: only one of them has {unmatched[0]}")
    for name, tensor in state.items():
        shapes = [tuple(t.shape) if torch.is_tensor(t) else None for t in (tensor, template[name])]
        if shapes[0] != shapes[1]:
            raise UserError(
                f"{both} are of different models: {name} is {shapes[0]} and {shapes[1]}"
            )
    if DICTIONARIES in state and not torch.equal(state[DICTIONARIES], template[DICTIONARIES]):
        raise UserError(f"{both} were trained with different dictionaries")
