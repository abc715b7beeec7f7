"""NumPy arrays of a process on the devices that read them."""

import numpy as np
import torch


class DeviceCopies:
    """An array as a tensor on each device that asks for it, copied there once.

    A step that copied it anew could not be recorded as a CUDA graph.
    """

    def __init__(self, array: np.ndarray):
        self.array = array
        self._copies: dict[torch.device, torch.Tensor] = {}

    def on(self, device: torch.device) -> torch.Tensor:
        """The array on a device, with its own type of numbers."""
        if device not in self._copies:
            with torch.inference_mode(False):  # such a tensor could not be used in training
                self._copies[device] = torch.tensor(self.array, device=device)
        return self._copies[device]
