"""torchrun trains one model in several processes, also on CPUs and on machines of a GPU each.

Fault: where a process sees one GPU or none, `infer_init_method` ignores torchrun, so that each
process trains a model of its own, or divides by the number of GPUs, which is zero.
`_broadcast_object_slow` sends a checkpoint's configuration to the other processes through
`torch.load`, which since torch 2.6 refuses it.

Patch: torchrun's environment variables are believed. Where there is no GPU, the backend is gloo,
with `legacy_ddp`, since the other wrappers want a GPU in each process. Objects are broadcast by
torch's own `broadcast_object_list`. That unpickles without restriction, but only what another
process of the same training has sent; the checkpoint itself was read weights only.

Other tasks: train in this way as well. Without torchrun, with several GPUs for each process, on a
TPU or with an explicit --distributed-init-method nothing changes but the broadcast.

Drop it: the first part when fairseq starts gloo itself; the second when fairseq's broadcast works
under torch 2.6.
"""

import os
from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from fairseq.distributed import utils as distributed_utils

LAUNCHED = ("MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE", "RANK")  # what torchrun sets


def _launched(cfg: Any) -> bool:
    """Whether torchrun started this process beside others."""
    return (
        not cfg.distributed_init_method
        and not cfg.tpu
        and all(name in os.environ for name in LAUNCHED)
        and int(os.environ["WORLD_SIZE"]) > 1
    )


def _follow_torchrun(original: Callable) -> Callable:
    @wraps(original)
    def infer_init_method(cfg: Any, force_distributed: bool = False) -> None:
        if _launched(cfg):
            # 1 is the default where there is one GPU, and would end fairseq's function at once
            cfg.distributed_world_size = int(os.environ["WORLD_SIZE"])
        if _launched(cfg) and torch.cuda.device_count() == 0:
            cfg.distributed_init_method = "env://"
            cfg.distributed_rank = int(os.environ["RANK"])
            cfg.distributed_no_spawn = True
            cfg.device_id = 0
            cfg.distributed_backend = "gloo"
            cfg.ddp_backend = "legacy_ddp"
        original(cfg, force_distributed)

    return infer_init_method


def _broadcast_unrestricted(original: Callable) -> Callable:
    @wraps(original)
    def broadcast_object_slow(
        obj: Any, src_rank: int, group: Any, dist_device: torch.device
    ) -> Any:
        if distributed_utils.use_xla():
            return original(obj, src_rank, group, dist_device)
        box = [obj]
        torch.distributed.broadcast_object_list(box, src=src_rank, group=group, device=dist_device)
        return box[0]

    return broadcast_object_slow


def install() -> None:
    """Replace `infer_init_method` and `_broadcast_object_slow` in `distributed.utils`."""
    distributed_utils.infer_init_method = _follow_torchrun(distributed_utils.infer_init_method)
    distributed_utils._broadcast_object_slow = _broadcast_unrestricted(
        distributed_utils._broadcast_object_slow
    )
