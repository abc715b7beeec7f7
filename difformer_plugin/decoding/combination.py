"""How the predictions of one step are combined: with the source alone, there is one."""

from typing import Any

import torch

from difformer_plugin.families.contract import Family
from difformer_plugin.networks.layers import Memory


class Combination:
    """Asks the model once a step, with the source.

    Args:
        options: DecodingOptions.
    """

    def __init__(self, options: Any):
        pass

    def memories(self, model: Family, memory: Memory) -> list[Memory]:
        """What the predictions of a step read: one memory for each of them."""
        return [memory]

    def combine(self, predictions: list[torch.Tensor]) -> torch.Tensor:
        """The prediction (N, D) of a step, from those made with each memory."""
        (prediction,) = predictions
        return prediction
