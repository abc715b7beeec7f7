"""Classifier-free guidance: how the predictions of a step with and without the source combine."""

from dataclasses import dataclass
from typing import Any

import torch
from fairseq.dataclass import FairseqDataclass

from difformer_plugin.errors import UserError
from difformer_plugin.families.contract import Family
from difformer_plugin.networks.layers import Memory
from difformer_plugin.options import option


@dataclass
class GuidanceOptions(FairseqDataclass):
    guidance_scale: float = option(
        0.0,
        "w of classifier-free guidance: (1 + w) times the prediction with the source less w times "
        "the one without; 0: none. Needs a model trained with --source-dropout",
    )


def check_guidance(model: Family, options: Any) -> None:
    """Raise a UserError for a scale out of range, or a model trained without absent sources."""
    scale = options.guidance_scale
    if not 0 <= scale < float("inf"):
        raise UserError(f"--guidance-scale must be at least 0, not {scale:g}")
    if scale > 0 and not model.has_seen_absent_sources:
        raise UserError(
            "--guidance-scale needs a model that was trained with --source-dropout, which this one "
            "was not: leave it out"
        )


class Combination:
    """z-hat = (1 + w) z-hat(z_t, x) - w z-hat(z_t, no source) (Ho and Salimans, 2022).

    Predictions are linear in what the heads score, so that for tokens the same holds of logits:
    log p ~ (1 + w) log p(. | x) - w log p(. | no source), up to a constant. With w = 0 the model is
    asked once a step. Both predictions read the combined one of the step before.

    Args:
        options: DecodingOptions.
    """

    def __init__(self, options: Any):
        self.scale = options.guidance_scale

    def memories(self, model: Family, memory: Memory) -> list[Memory]:
        """What the predictions of a step read: one memory for each of them."""
        if self.scale == 0:
            return [memory]
        return [memory, model.without_source(memory)]

    def combine(self, predictions: list[torch.Tensor]) -> torch.Tensor:
        """The prediction of a step, of the shape of those made with each memory.

        Both halves of a prediction (N, 2D) are combined alike (`gaussian.rounding`): what is
        rounded combines log-probabilities, and z_0-hat is extrapolated.
        """
        if self.scale == 0:
            (prediction,) = predictions
            return prediction
        with_source, without = predictions
        return (1 + self.scale) * with_source - self.scale * without
