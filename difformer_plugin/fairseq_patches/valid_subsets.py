"""fairseq-train validates on valid1, valid2, ... beside valid.

Fault: before training fairseq compares the names of files, such as `valid1.de-en.de`, with those of
subsets, such as `valid1`. They never agree, so that --valid-subset valid,valid1 is refused by a
traceback.

Patch: subsets are compared with subsets. For our tasks, those that would be ignored are refused in
one line.

Other tasks: --valid-subset valid,valid1 works as well.

Drop it: when `_find_extra_valid_paths` returns the names of subsets.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

from fairseq.data import data_utils
from fairseq.tasks import TASK_REGISTRY

from difformer_plugin.errors import UserError
from difformer_plugin.families.contract import DiffusionTask


def _named(original: Callable) -> Callable:
    @wraps(original)
    def _find_extra_valid_paths(dataset_path: str) -> set[str]:
        return {root.partition(".")[0] for root in original(dataset_path)}

    return _find_extra_valid_paths


def _explained(original: Callable) -> Callable:
    @wraps(original)
    def raise_if_valid_subsets_unintentionally_ignored(train_cfg: Any) -> None:
        try:
            original(train_cfg)
        except ValueError:
            task, named = TASK_REGISTRY[train_cfg.task._name], train_cfg.dataset.valid_subset
            if not issubclass(task, DiffusionTask):
                raise
            found = data_utils._find_extra_valid_paths(train_cfg.task.data)
            ignored = ",".join(sorted(found - set(named.split(","))))
            raise UserError(
                f"--valid-subset {named} leaves out {ignored} of the data: name them there as "
                "well, or give --combine-valid-subsets or --ignore-unused-valid-subsets"
            ) from None

    return raise_if_valid_subsets_unintentionally_ignored


def install() -> None:
    """Replace two functions in `data_utils`."""
    data_utils._find_extra_valid_paths = _named(data_utils._find_extra_valid_paths)
    data_utils.raise_if_valid_subsets_unintentionally_ignored = _explained(
        data_utils.raise_if_valid_subsets_unintentionally_ignored
    )
