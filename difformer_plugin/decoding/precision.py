"""Does a precision pay on this machine? One that is slower than float32 is refused."""

from typing import Any

import torch
from torch import nn

from difformer_plugin.errors import UserError
from difformer_plugin.networks.precision import PRECISIONS, relative_time

MARGIN = 1.1  # measured times differ by less


def check_precision(denoiser: nn.Module, options: Any) -> None:
    """Refuse a --decoding-precision that is slower than float32 on the denoiser's device.

    Raises:
        UserError: it is slower, and --force-precision is not given; or it is int8 on a GPU.
    """
    name, device = options.decoding_precision, denoiser.output_projection.weight.device
    if name == "int8" and device.type != "cpu":
        raise UserError("--decoding-precision int8 is for CPUs: use fp16 or bf16 on a GPU")
    if options.force_precision or pays(denoiser, name):
        return
    times = relative_time(denoiser, PRECISIONS[name])
    raise UserError(
        f"--decoding-precision {name} is slower than fp32 here: {processor(device)} takes "
        f"{times:.1f} times as long for this model; leave the option out, or give "
        "--force-precision as well"
    )


def pays(denoiser: nn.Module, name: str | None) -> bool:
    """Whether a precision is at least as fast as float32 on the denoiser's device.

    It is, where the processor has matrix instructions for it. Elsewhere a linear layer of the
    model's size is timed in both precisions.

    Args:
        name: of `PRECISIONS`; None is the model's own.
    """
    device = denoiser.output_projection.weight.device
    if name in (None, "fp32") or has_instructions(name, device):
        return True
    return relative_time(denoiser, PRECISIONS[name]) < MARGIN


def has_instructions(name: str, device: torch.device) -> bool:
    """Whether a processor has matrix instructions for a half precision.

    GPUs have tensor cores for float16 from compute capability 7.0 on, for bfloat16 from 8.0 on;
    CPUs with AMX multiply in bfloat16.
    """
    if device.type == "cuda":
        least = (7, 0) if name == "fp16" else (8, 0)
        return torch.cuda.get_device_capability(device) >= least
    return device.type == "cpu" and name == "bf16" and torch.cpu._is_amx_tile_supported()


def processor(device: torch.device) -> str:
    """What a device is, for a message: of a CPU the instructions that torch uses."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"this CPU ({torch.backends.cpu.get_cpu_capability()})"
