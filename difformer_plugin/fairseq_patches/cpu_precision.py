"""--bf16 trains on the CPU and on GPUs; --fp16 on the CPU is refused in one line.

Fault: fairseq takes --bf16 for the precision of a TPU and fails without `torch_xla`. --fp16 asks
for a GPU to flatten gradients, so that on the CPU it fails with an assertion of torch's.

Patch: where `torch_xla` is not installed, --bf16 no longer implies --tpu. On the CPU our tasks
refuse to train with any form of --fp16, since float16 is slow there as well.

Other tasks: --bf16 works where it would have failed; an explicit --tpu is respected, and --fp16 is
left alone.

Drop it: when fairseq separates --bf16 from --tpu and trains in float16 on the CPU.
"""

import importlib.util
import sys
from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any

import torch
from fairseq import optim, options
from fairseq.tasks import TASK_REGISTRY

from difformer_plugin.errors import UserError

PACKAGE = __name__.partition(".")[0]


def _bf16_without_tpu(original: Callable) -> Callable:
    @wraps(original)
    def parse_args_and_arch(parser: Any, input_args: Any = None, *args: Any, **kwargs: Any) -> Any:
        parsed = original(parser, input_args, *args, **kwargs)
        namespace = parsed[0] if isinstance(parsed, tuple) else parsed
        bf16 = "bf16" in namespace and namespace.bf16  # options at their defaults may be left out
        asked_for_tpu = "--tpu" in (sys.argv if input_args is None else input_args)
        if bf16 and not asked_for_tpu and importlib.util.find_spec("torch_xla") is None:
            namespace.tpu = False
        return parsed

    return parse_args_and_arch


def _is_our_task(cfg: Any) -> bool:
    """Whether a fairseq configuration is for a task that this package has registered."""
    name = cfg.task._name if "task" in cfg else None
    return name in TASK_REGISTRY and TASK_REGISTRY[name].__module__.startswith(f"{PACKAGE}.")


def _refuse_fp16_on_cpu(original: Callable) -> classmethod:
    def build_optimizer(
        cls: type, cfg: Any, params: Iterable[torch.nn.Parameter], **kwargs: Any
    ) -> Any:
        params = list(params)
        if cfg.common.fp16 and not params[0].is_cuda and _is_our_task(cfg):
            raise UserError("--fp16 trains on a GPU only: use --bf16 on the CPU, or neither")
        return original(cfg, params, **kwargs)

    return classmethod(build_optimizer)


def install() -> None:
    """Replace `options.parse_args_and_arch` and `build_optimizer` of the half-precision classes."""
    options.parse_args_and_arch = _bf16_without_tpu(options.parse_args_and_arch)
    for optimizer in (optim.FP16Optimizer, optim.MemoryEfficientFP16Optimizer):
        optimizer.build_optimizer = _refuse_fp16_on_cpu(optimizer.build_optimizer)
