"""fairseq's commands read what `difformer export` writes.

Fault: fairseq reads checkpoints that torch has pickled only, so that --path, --finetune-from-model
and `from_pretrained` could not name a `model.safetensors`.

Patch: `load_checkpoint_to_cpu` reads files of that suffix, with the `config.json` beside them.

Other tasks: nothing changes, but for files that end in `.safetensors`.

Drop it: never, unless fairseq learns to read safetensors.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

from fairseq import checkpoint_utils
from fairseq.dataclass.utils import overwrite_args_by_name
from omegaconf import OmegaConf

from difformer_plugin.checkpoints.exported import is_exported, read_exported


def _read_safetensors(original: Callable) -> Callable:
    @wraps(original)
    def load_checkpoint_to_cpu(
        path: str, arg_overrides: dict[str, Any] | None = None, *args: Any, **kwargs: Any
    ) -> dict:
        if not is_exported(path):
            return original(path, arg_overrides, *args, **kwargs)
        state = read_exported(path)
        state["cfg"] = OmegaConf.create(state["cfg"], flags={"allow_objects": True})
        overwrite_args_by_name(state["cfg"], arg_overrides or {})
        return state

    return load_checkpoint_to_cpu


def install() -> None:
    """Replace `checkpoint_utils.load_checkpoint_to_cpu`."""
    checkpoint_utils.load_checkpoint_to_cpu = _read_safetensors(
        checkpoint_utils.load_checkpoint_to_cpu
    )
