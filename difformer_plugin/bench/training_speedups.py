"""Replace speed-ups of training by plain implementations, to measure what each of them gives.

Models and criteria have no switches for this: they always train with all speed-ups.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import MethodType
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from difformer_plugin.families.base import DiffusionModel
from difformer_plugin.families.chunked_sums import Costs
from difformer_plugin.families.criterion import DiffusionCriterion
from difformer_plugin.networks.dropout import Dropout
from difformer_plugin.networks.layers import Attention, Conditions, Memory
from difformer_plugin.networks.layout import Layout


class TrainingSpeedups(NamedTuple):
    """Which speed-ups are on; none of them changes the result beyond round-off."""

    dropout: bool
    single: bool
    share: bool
    pack: bool
    chunk: bool


ENGINE = TrainingSpeedups(True, True, True, True, True)
PLAIN = TrainingSpeedups(False, False, False, False, False)

DESCRIPTIONS = {
    "dropout": "dropout masks from 16-bit random numbers, fused with the residual (CPU)",
    "single": "attention of half-precision tensors in float32 (CPU)",
    "share": "one projection of the sources for both passes of self-conditioning",
    "pack": "no computation for padding in the operations on single target tokens",
    "chunk": "the logits of a few tokens at a time",
}


def only(name: str) -> TrainingSpeedups:
    """A single speed-up."""
    return PLAIN._replace(**{name: True})


@contextmanager
def training_with(speedups: TrainingSpeedups, *modules: nn.Module) -> Iterator[None]:
    """A context in which models and criteria train with these speed-ups only."""
    parts = [part for module in modules for part in module.modules()]
    with ExitStack() as stack:
        for name, kind, attribute, make_plain in PLAIN_IMPLEMENTATIONS:
            if not getattr(speedups, name):
                for part in parts:
                    if isinstance(part, kind):
                        setattr(part, attribute, make_plain(part))
                        stack.callback(delattr, part, attribute)
        yield


def _dropout(module: Dropout) -> Any:
    def forward(
        self: Dropout, x: torch.Tensor, residual: torch.Tensor | None = None
    ) -> torch.Tensor:
        x = F.dropout(x, self.p, self.training)
        return x if residual is None else residual + x

    return MethodType(forward, module)


def _attend(module: Attention) -> Any:
    def attend(self: Attention, q: Any, k: Any, v: Any, mask: Any) -> torch.Tensor:
        dropout = self.dropout if self.training else 0.0
        return F.scaled_dot_product_attention(q, k, v, mask, dropout)

    return MethodType(attend, module)


def _project_again(model: DiffusionModel) -> Any:
    def select_conditions(conditions: Conditions, memory: Memory, sentences: Any) -> Conditions:
        return model.denoiser.conditions(memory.select(sentences))

    return select_conditions


def _padded(model: DiffusionModel) -> Any:
    return Layout.dense


def _all_at_once(criterion: DiffusionCriterion) -> Any:
    def token_sums(
        costs: Costs, latents: torch.Tensor, table: torch.Tensor, *columns: torch.Tensor
    ) -> torch.Tensor:
        return costs.function(F.linear(latents, table).float(), *columns).sum(0)

    return token_sums


# (speed-up, class that has it, attribute to replace, function that makes the plain implementation)
PLAIN_IMPLEMENTATIONS = (
    ("dropout", Dropout, "forward", _dropout),
    ("single", Attention, "attend", _attend),
    ("share", DiffusionModel, "select_conditions", _project_again),
    ("pack", DiffusionModel, "layout", _padded),
    ("chunk", DiffusionCriterion, "token_sums", _all_at_once),
)
