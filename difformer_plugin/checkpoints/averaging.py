"""The mean of several checkpoints of one training, as a checkpoint."""

import math
import re
from dataclasses import dataclass
from pathlib import Path

import torch

from difformer_plugin.checkpoints.fingerprint import KEY as DICTIONARIES
from difformer_plugin.errors import UserError
from difformer_plugin.fairseq_patches.guards import UNREADABLE, load_weights_only

# What fairseq names the checkpoints of a --save-dir: by epoch, by epoch and updates, best, last.
# Of several names for one and the same the first in this order is kept.
NAMES = (r"checkpoint\d+", r"checkpoint_\d+_\d+", r"checkpoint\.best_.*", r"checkpoint_(best|last)")
EXTRA_STATE = "_extra_state"  # the end of torch's name for a module's state that is no weight


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint of a --save-dir: its updates, and its metric, None where it has none."""

    path: Path
    updates: int
    metric_name: str
    maximize: bool
    metric: float | None

    def __str__(self):
        metric = "no metric" if self.metric is None else f"{self.metric_name} {self.metric:g}"
        return f"{self.path.name}  {self.updates:,} updates  {metric}"


def read(path):
    """A checkpoint, weights only; tensors stay on the disk until they are used."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (*UNREADABLE, OSError):
        return load_weights_only(path)  # an older format, or the line for the user


def checkpoints(folder):
    """The checkpoints of fairseq's in a folder, each number of updates once, newest first.

    Raises:
        UserError: no such folder, or a file that is not a checkpoint of fairseq.
    """
    found = {}
    for path in files(folder):
        checkpoint = describe(path)
        found.setdefault(checkpoint.updates, checkpoint)
    return [found[updates] for updates in sorted(found, reverse=True)]


def files(folder):
    """The files in a folder that are named as fairseq names checkpoints.

    Raises:
        UserError: no such folder.
    """
    if not Path(folder).is_dir():
        raise UserError(f"{folder}: no such folder; name the --save-dir of fairseq-train")
    paths = sorted(Path(folder).glob("checkpoint*.pt"))
    return [path for name in NAMES for path in paths if re.fullmatch(name, path.stem)]


def describe(path):
    """What a checkpoint file says of itself.

    Raises:
        UserError: it cannot be read, or is none of fairseq's.
    """
    state = read(path)
    try:
        options = state["cfg"]["checkpoint"] if state.get("cfg") else vars(state["args"])
        updates = int(state["optimizer_history"][-1]["num_updates"])
        metric = state["extra_state"].get("val_loss")
        name = options["best_checkpoint_metric"]
        maximize = bool(options["maximize_best_checkpoint_metric"])
    except (KeyError, IndexError, TypeError, AttributeError):
        raise UserError(f"{path} is not a checkpoint of a training with fairseq") from None
    known = metric is not None and math.isfinite(metric)
    return Checkpoint(Path(path), updates, name, maximize, float(metric) if known else None)


def newest(found, number, folder):
    """The checkpoints with the most updates.

    Raises:
        UserError: there are fewer.
    """
    if len(found) < number:
        raise UserError(
            f"{folder} has {len(found)} checkpoints, not {number}: average fewer, or train without "
            f"--no-epoch-checkpoints and with --keep-last-epochs {number} or more, or none"
        )
    return found[:number]


def best(found, number, folder):
    """The checkpoints with the best metric, the better ones first; of equals the newer.

    Raises:
        UserError: there are fewer with a metric, or their metrics are not the same.
    """
    scored = [checkpoint for checkpoint in found if checkpoint.metric is not None]
    if len(scored) < number:
        raise UserError(
            f"{folder} has {len(scored)} checkpoints with a metric, not {number}: average fewer, "
            f"or train with a valid set and --keep-best-checkpoints {number} or more"
        )
    kinds = {(checkpoint.metric_name, checkpoint.maximize) for checkpoint in scored}
    if len(kinds) > 1:
        names = ", ".join(sorted(f"{name} ({'max' if up else 'min'})" for name, up in kinds))
        raise UserError(f"{folder} has checkpoints with different metrics ({names}): use --last")
    sign = -1 if scored[0].maximize else 1
    return sorted(scored, key=lambda checkpoint: sign * checkpoint.metric)[:number]


def average(chosen, progress=iter):
    """The mean of checkpoints, as one that fairseq can load, without an optimiser's state.

    Weights are added up in float64 and get their own type again. What is not a weight (integers,
    a module's extra state as the rescaling factor) is the newest checkpoint's.

    Args:
        chosen: of `checkpoints`; one at a time is in memory, besides the sum.
        progress: wraps the iteration over them, as tqdm does.
    Raises:
        UserError: they are not of one model.
    """
    latest = max(chosen, key=lambda checkpoint: checkpoint.updates)
    result = read(latest.path)
    template = result["model"]
    weights = {
        name
        for name, tensor in template.items()
        if torch.is_tensor(tensor) and tensor.is_floating_point() and not name.endswith(EXTRA_STATE)
    }
    sums = {name: torch.zeros_like(template[name], dtype=torch.float64) for name in weights}
    for checkpoint in progress(chosen):
        state = read(checkpoint.path)["model"]
        check_alike(state, template, checkpoint.path, latest.path)
        for name in weights:
            if torch.isnan(state[name]).any():
                raise UserError(
                    f"{checkpoint.path} has weights that are no numbers ({name}), as after a "
                    "training that has diverged: leave it out"
                )
            sums[name] += state[name]
    means, shared = {}, {}
    for name, tensor in template.items():
        if name not in weights:
            means[name] = tensor.clone() if torch.is_tensor(tensor) else tensor
            continue
        mean = (sums.pop(name) / len(chosen)).to(tensor.dtype)
        # what a model shares is one tensor under several names, and stays so in the file
        place = (tensor.data_ptr(), tensor.shape, tensor.stride())
        twin = shared.setdefault(place, mean)
        means[name] = twin if torch.equal(twin, mean) else mean
    history = {**result["optimizer_history"][-1]}
    return {
        "args": result.get("args"),
        "cfg": result.get("cfg"),
        "model": means,
        "optimizer_history": [history],
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


def check_alike(state, template, path, latest):
    """Two state dicts must have the same names, shapes and dictionaries."""
    if odd := sorted(set(state) ^ set(template)):
        raise UserError(f"{path} and {latest} are of different models: one alone has {odd[0]}")
    for name, tensor in state.items():
        shapes = [tuple(t.shape) if torch.is_tensor(t) else None for t in (tensor, template[name])]
        if shapes[0] != shapes[1]:
            shapes = " and ".join(map(str, shapes))
            raise UserError(f"{path} and {latest} are of different models: {name} is {shapes}")
    if DICTIONARIES in state and not torch.equal(state[DICTIONARIES], template[DICTIONARIES]):
        raise UserError(f"{path} and {latest} were trained with different dictionaries")
