"""A folder with a trained model: which file has the weights, and where the dictionaries are."""

import os
from pathlib import Path
from typing import Any

from difformer_plugin.checkpoints.exported import CONFIG, WEIGHTS
from difformer_plugin.checkpoints.loading import load_weights_only
from difformer_plugin.errors import UserError

# Weights in a folder, the first that exists.
NAMES = (WEIGHTS, "model.pt", "checkpoint_best.pt", "checkpoint_last.pt")
DECODING = "decoding.toml"  # settings of decoding that were exported with a model
DICTIONARIES = "dict.*.txt"


def find_weights(model: str | os.PathLike) -> Path:
    """The file of weights that a user means by a file or a folder.

    Raises:
        UserError: there is none, or the folder has several and none of NAMES.
    """
    path = Path(model)
    if path.is_file():
        return path.parent / WEIGHTS if path.name == CONFIG else path
    if not path.is_dir():
        raise UserError(f"{path}: no such checkpoint or folder")
    for name in NAMES:
        if (path / name).is_file():
            return path / name
    others = sorted(path.glob("*.pt"))
    if len(others) == 1:
        return others[0]
    found = f"several: {', '.join(p.name for p in others[:3])}" if others else "none"
    raise UserError(
        f"{path} has no {', '.join(NAMES[:-1])} or {NAMES[-1]}, and of other checkpoints {found}; "
        "name the file"
    )


def read_task(weights: Path) -> tuple[dict[str, Any], int]:
    """The configuration of the task in a checkpoint, and its number of updates.

    Raises:
        UserError: the file holds no model of fairseq's.
    """
    state = load_weights_only(weights, memory_map=True)
    try:
        cfg = dict(state["cfg"]["task"] if state.get("cfg") else vars(state["args"]))
        return cfg, int(state["optimizer_history"][-1].get("num_updates", 0))
    except (KeyError, IndexError, TypeError, AttributeError, ValueError):
        raise UserError(f"{weights} holds no fairseq model: give a checkpoint of one") from None


def find_dictionaries(
    weights: Path, cfg: Any, data: str | os.PathLike | None = None
) -> tuple[Path, bool]:
    """The folder of a model's dictionaries and pipeline.

    Args:
        weights: the file.
        cfg: the task's configuration in it.
        data: what the user names; None for the folder of the weights or, if no dictionaries are
            there, that of the training data.
    Returns:
        the folder, and whether it is beside the weights.
    Raises:
        UserError: there is no such folder.
    """
    if data is not None:
        if not Path(data).is_dir():
            raise UserError(f"--data {data}: no such folder; give a data-bin")
        return Path(data), False
    if any(weights.parent.glob(DICTIONARIES)):
        return weights.parent, True
    trained_on = str(cfg.get("data") or "").split(os.pathsep)[0]
    if trained_on and any(Path(trained_on).glob(DICTIONARIES)):
        return Path(trained_on), False
    raise UserError(
        f"{weights} has no dictionaries ({DICTIONARIES}) beside it, and the data-bin that it was "
        f"trained on, {trained_on or 'of unknown name'}, is not there: name it with --data"
    )
