"""Times of training drawn by importance: the more often, the larger their losses (DiffuSeq)."""

import math
from collections import deque
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import nn

from difformer_plugin.errors import UserError

BUCKETS = 100  # parts of [0, 1) of equal length; of T = 2000 steps each has 20
LOSSES = 10  # the last ones of each bucket
UNIFORM_SHARE = 0.001  # of all draws, as in the published code: no weight is above 1000
KEY = "importance._extra_state"  # in a model's state dict


class Draw(NamedTuple):
    """How the times of n targets were drawn."""

    buckets: torch.Tensor  # int64 (n,)
    weights: torch.Tensor  # float32 (n,), 1 / (p(bucket) BUCKETS): of the losses at these times


class ImportanceTimes(nn.Module):
    """p(t), proportional to the root of the mean squared loss at t, and the losses behind it.

    Time is divided into BUCKETS, within which it is uniform. p is uniform until LOSSES losses of
    each bucket are known. A loss is multiplied by its weight, so that its mean is that of uniform
    times whatever p is.

    Checkpoints store the losses. All ranks of a training run record the losses of all.
    """

    def __init__(self) -> None:
        super().__init__()
        self.losses: list[deque[float]] = [deque(maxlen=LOSSES) for _ in range(BUCKETS)]

    @property
    def known(self) -> bool:
        """Whether there are losses enough for p."""
        return all(len(losses) == LOSSES for losses in self.losses)

    def probabilities(self) -> torch.Tensor:
        """p of the buckets, float64 (BUCKETS,)."""
        uniform = torch.full((BUCKETS,), 1 / BUCKETS, dtype=torch.float64)
        if not self.known:
            return uniform
        roots = torch.tensor(self.losses, dtype=torch.float64).square().mean(1).sqrt()
        if not roots.any():
            return uniform
        return (1 - UNIFORM_SHARE) * roots / roots.sum() + UNIFORM_SHARE * uniform

    def draw(self, u: torch.Tensor) -> tuple[torch.Tensor, Draw]:
        """Times that are distributed by p, from uniform numbers by the inverse of its integral.

        Args:
            u: (n,), in [0, 1).
        Returns:
            times in [0, 1), (n,), and their buckets and weights.
        """
        if not self.known:
            return u, Draw((u * BUCKETS).long(), torch.ones_like(u))
        p = self.probabilities().to(u.device)
        ends = p.cumsum(0)
        u = u.double() * ends[-1]  # which is 1 up to rounding
        buckets = torch.searchsorted(ends, u, right=True).clamp(max=BUCKETS - 1)
        own = p[buckets]
        within = ((u - ends[buckets] + own) / own).clamp(0, 1 - 1e-9)
        return (buckets + within) / BUCKETS, Draw(buckets, (1 / (own * BUCKETS)).float())

    def record(self, buckets: torch.Tensor, losses: torch.Tensor) -> None:
        """Note losses of training, without their weights.

        All ranks call this together.

        Args:
            buckets: int64 (n,); losses: (n,). What is not finite is left out.
        """
        found = list(zip(buckets.tolist(), losses.tolist()))
        distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
        if distributed:
            of_ranks: list[Any] = [None] * torch.distributed.get_world_size()
            torch.distributed.all_gather_object(of_ranks, found)
            found = list(chain.from_iterable(of_ranks))
        for bucket, loss in found:
            if math.isfinite(loss):
                self.losses[bucket].append(loss)

    def get_extra_state(self) -> torch.Tensor:
        """The losses for the checkpoint, oldest first, float64 (BUCKETS, LOSSES); then inf.

        It is a tensor of one shape so that checkpoints can be averaged.
        """
        state = torch.full((BUCKETS, LOSSES), torch.inf, dtype=torch.float64)
        for row, losses in zip(state, self.losses):
            row[: len(losses)] = torch.tensor(losses, dtype=torch.float64)
        return state

    def set_extra_state(self, state: Any) -> None:
        """Take the losses from a checkpoint.

        Raises:
            UserError: the state is not what `get_extra_state` returns.
        """
        if not torch.is_tensor(state) or state.shape != (BUCKETS, LOSSES):
            raise UserError(
                "the checkpoint's losses by time, of --time-sampling importance, are damaged: use "
                "another checkpoint"
            )
        for losses, row in zip(self.losses, state):
            losses.clear()
            losses.extend(row[row.isfinite()].tolist())


def completed(importance: ImportanceTimes | None, state: dict[str, Any]) -> dict[str, Any]:
    """The state dict of a model that was perhaps trained with another --time-sampling."""
    if importance is None:
        return {name: value for name, value in state.items() if name != KEY}
    return {KEY: ImportanceTimes().get_extra_state(), **state}
