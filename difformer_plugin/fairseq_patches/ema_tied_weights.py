"""The moving average of --store-ema: weights of several names, and state that is no tensor.

Fault: fairseq updates the average in place, name by name. With --share-all-embeddings a table has
three names, so that it is updated three times at each step, and d = --ema-decay is d^3 for it. With
--ema-fp32 it fails at state that is no tensor, which discrete diffusion has.

Patch: each tensor is updated under its first name only. The others share its memory. Only tensors
are copied to float32, and none of another shape, from a checkpoint of an older version.

Other tasks: their tied weights are averaged like all others, too.

Drop it: when fairseq does so itself.
"""

from collections.abc import Callable
from functools import wraps
from types import SimpleNamespace
from typing import Any

import torch
from fairseq.models.ema.ema import EMA


def without_repetitions(state: dict[str, Any]) -> dict[str, Any]:
    """A state dict in which each tensor has its first name only."""
    first: dict[Any, str] = {}
    for name, value in state.items():
        is_tensor = torch.is_tensor(value) and value.numel() > 0
        place = (value.data_ptr(), value.shape, value.stride()) if is_tensor else name
        first.setdefault(place, name)
    return {name: state[name] for name in first.values()}


def _once(original: Callable) -> Callable:
    @wraps(original)
    def _step_internal(self: EMA, new_model: Any, updates: int | None = None) -> None:
        model = SimpleNamespace(state_dict=lambda: without_repetitions(new_model.state_dict()))
        original(self, model, updates)

    return _step_internal


def _tensors_only(original: Callable) -> Callable:
    @wraps(original)
    def build_fp32_params(self: EMA, state_dict: dict[str, Any] | None = None) -> None:
        state = self.model.state_dict() if state_dict is None else state_dict
        tensors = {name: value for name, value in state.items() if torch.is_tensor(value)}
        for name in tensors.keys() & self.fp32_params.keys():
            if tensors[name].shape != self.fp32_params[name].shape:  # F of an older version
                del tensors[name]
        original(self, tensors)

    return build_fp32_params


def install() -> None:
    """Replace `EMA._step_internal` and `EMA.build_fp32_params`."""
    EMA._step_internal = _once(EMA._step_internal)
    EMA.build_fp32_params = _tensors_only(EMA.build_fp32_params)
