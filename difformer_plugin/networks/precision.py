"""The precisions of a denoiser: float32, half precision, and linear layers in int8."""

import copy
import time
import warnings
from functools import cache

import torch
from torch import nn

# torch.qint8: linear layers compute in int8, all else in float32
PRECISIONS = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "int8": torch.qint8,
}
TOKENS, SECONDS = 1024, 0.02  # size of the timed batch, and how long it is repeated


def state_type(dtype: torch.dtype) -> torch.dtype:
    """The dtype of the states that a denoiser reads and returns in a precision."""
    return torch.float32 if dtype == torch.qint8 else dtype


def converted(denoiser: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A copy of a denoiser in a precision.

    int8 is dynamic quantisation: each linear layer has one scale for its weights, and computes one
    for its inputs at each call. The output projection, which rounds to tokens, stays in float32.
    """
    if dtype != torch.qint8:
        return copy.deepcopy(denoiser).to(dtype)
    linear = {name for name, own in denoiser.named_modules() if isinstance(own, nn.Linear)}
    return quantised(copy.deepcopy(denoiser).float(), linear - {"output_projection"})


def quantised(module: nn.Module, linear: set[str]) -> nn.Module:
    """A copy of a module whose linear layers of these names compute in int8."""
    from torch.ao.quantization import quantize_dynamic  # slow to import

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of torch's own quantisation
        return quantize_dynamic(module.eval(), linear, dtype=torch.qint8)


def relative_time(denoiser: nn.Module, dtype: torch.dtype) -> float:
    """How long a linear layer takes in a precision, as a multiple of the time in float32.

    The layer has the size of the denoiser's largest one. It is timed once for each size and device.
    """
    layers = [own for own in denoiser.modules() if isinstance(own, nn.Linear)]
    layers = [own for own in layers if own is not denoiser.output_projection]
    largest = max(layers, key=lambda own: own.weight.numel()).weight
    times = [seconds(kind, largest.shape, largest.device) for kind in (dtype, torch.float32)]
    return times[0] / times[1]


@cache
def seconds(dtype: torch.dtype, shape: torch.Size, device: torch.device) -> float:
    """The least time that a linear layer (out, in) took for a batch of tokens."""
    network = nn.Sequential(nn.Linear(shape[1], shape[0], device=device))
    network = network.float() if dtype == torch.qint8 else network.to(dtype)
    if dtype == torch.qint8:
        network = quantised(network, {"0"})
    x = torch.zeros(TOKENS, shape[1], dtype=state_type(dtype), device=device)
    times: list[float] = []
    with torch.inference_mode():
        network(x)
        while sum(times) < SECONDS or len(times) < 3:
            start = time.perf_counter()
            network(x).sum().item()  # so that a GPU has finished
            times.append(time.perf_counter() - start)
    return min(times)
