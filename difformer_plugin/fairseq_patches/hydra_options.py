"""`fairseq-hydra-train` checks options as `fairseq-train` does.

Fault: it has no command line of options that could be checked, ignores what cannot work, and ends
in a traceback if a key is unknown or a value has the wrong type.

Patch: `setup_task`, the first function that it calls with a configuration after --user-dir was
read, checks the whole of it for our tasks. `merge_with_parent`, which compares it with the options
that are known, raises a UserError.

Other tasks: nothing changes.

Drop it: never.
"""

from argparse import Namespace
from collections.abc import Callable
from functools import wraps
from typing import Any

from fairseq import models, tasks
from fairseq.dataclass import utils as dataclass_utils
from fairseq.dataclass.configs import FairseqConfig
from fairseq.distributed.utils import get_global_rank
from fairseq.registry import REGISTRIES
from fairseq.tasks import TASK_DATACLASS_REGISTRY, TASK_REGISTRY
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from difformer_plugin.errors import UserError
from difformer_plugin.fairseq_patches.checked_options import check_options
from difformer_plugin.families.contract import DiffusionTask
from difformer_plugin.tasks.option_values import check_values

COMMAND = "train"
GROUPS = ("common", "distributed_training", "dataset", "optimization", "checkpoint", "ema")


def _flat(cfg: DictConfig) -> dict[str, Any]:
    """The options of a training by the names that they have on the command line.

    A name that several groups have is that of the first; the others refer to it.
    """
    table = OmegaConf.to_container(cfg, resolve=True, enum_to_str=True)
    flat: dict[str, Any] = {}
    for group in (*GROUPS, "task", *REGISTRIES):
        part = dict(table.get(group) or {})
        if group not in GROUPS:
            flat[group] = part.pop("_name", None)
        flat = {**part, **flat}
    return flat


def _defaults(task: str) -> dict[str, Any]:
    """The defaults of fairseq's own options, of the options of a task, and of the registries."""
    own = OmegaConf.structured(TASK_DATACLASS_REGISTRY[task])
    chosen = {name: registry["default"] for name, registry in REGISTRIES.items()}
    return {
        **OmegaConf.to_container(own, enum_to_str=True),
        **_flat(OmegaConf.structured(FairseqConfig)),
        **{"task": task, **chosen},
    }


def check_config(cfg: DictConfig) -> None:
    """Check the configuration of a training, as `checked_options` checks a command line.

    Args:
        cfg: fairseq's, with all of its groups.
    Raises:
        UserError: an option is refused, or has an impossible value.
    """
    flat, defaults = _flat(cfg), _defaults(cfg.task._name)
    given = {
        name: value
        for name, value in flat.items()
        if value is not None and value != defaults.get(name)
    }
    unread = check_options(COMMAND, given, warns=get_global_rank() == 0)
    read = {name: value for name, value in given.items() if name not in unread}
    check_values(COMMAND, Namespace(**flat), read)


def _is_of_hydra(cfg: Any) -> bool:
    """Whether a whole configuration is one of `fairseq-hydra-train`."""
    return cfg is not None and ("job_logging_cfg" in cfg or cfg.common.reset_logging)


def _checked(original: Callable) -> Callable:
    @wraps(original)
    def setup_task(cfg: Any, **kwargs: Any) -> Any:
        if not kwargs.get("from_checkpoint") and _is_ours(cfg):
            whole = cfg._get_parent()
            if _is_of_hydra(whole):
                check_config(whole)
        return original(cfg, **kwargs)

    return setup_task


def _is_ours(cfg: Any) -> bool:
    """Whether a part of a configuration is that of a task of ours, or stands beside one."""
    if not isinstance(cfg, DictConfig):
        return False
    for each in (cfg, (cfg._get_parent() or {}).get("task")):
        name = each.get("_name") if isinstance(each, DictConfig) else each
        task = TASK_REGISTRY.get(name)
        if task is not None and issubclass(task, DiffusionTask):
            return True
    return False


def _with_reasons(original: Callable) -> Callable:
    @wraps(original)
    def merge_with_parent(dc: Any, cfg: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return original(dc, cfg, *args, **kwargs)
        except OmegaConfBaseException as error:
            if not _is_ours(cfg):
                raise
            reason = str(error).splitlines()[0]
            raise UserError(
                f"{error.full_key}: {reason}; `difformer options` prints the options with their "
                "defaults"
            ) from error

    return merge_with_parent


def install() -> None:
    """Replace `tasks.setup_task`, and `merge_with_parent` wherever it was imported."""
    tasks.setup_task = _checked(tasks.setup_task)
    for module in (dataclass_utils, tasks, models):
        module.merge_with_parent = _with_reasons(module.merge_with_parent)
