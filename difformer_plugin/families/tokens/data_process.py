"""The forward process of a discrete diffusion model, including what it takes from the data."""

from typing import Any

import torch
from torch import nn

from difformer_plugin.diffusion.categorical.information import uniform_mutual_information
from difformer_plugin.diffusion.categorical.neighbours import NearestNeighbour, neighbour_tables
from difformer_plugin.diffusion.categorical.process import Absorbing, ForwardProcess, Uniform
from difformer_plugin.diffusion.categorical.samplers.base import RATIOS
from difformer_plugin.diffusion.schedules import SCHEDULES, Floored, Tabulated
from difformer_plugin.errors import UserError, translated
from difformer_plugin.families.tokens.config import (
    ABSORBING,
    DEFAULT_SCHEDULE,
    NEAREST,
    OBJECTIVES,
    UNIFORM,
)
from difformer_plugin.families.tokens.type_vectors import type_vectors

FLOOR = 1e-3  # alpha at the end of score-based uniform diffusion, whose rate must be finite
KINDS: dict[str, type[ForwardProcess]] = {
    UNIFORM: Uniform,
    ABSORBING: Absorbing,
    NEAREST: NearestNeighbour,
}


class DataDependentProcess(nn.Module):
    """The forward process over the target's types, from the configuration or a checkpoint.

    Two things depend on the data: the mutual-information schedule of processes without a mask, and
    the graph of nearest neighbours. They are computed when the process is first needed, unless a
    checkpoint brought them, and every checkpoint holds them.

    Args:
        process: a name in `config.PROCESSES`.
        schedule: a name of a noise schedule; None for the process's default.
        floored: end at `FLOOR` instead of 0 where the process has no mask.
        cfg: has the options of the nearest-neighbour process.
        dictionary: of the target.
        first_type: index of its first type that can be corrupted.
    """

    def __init__(
        self,
        process: str,
        schedule: str | None,
        floored: bool,
        cfg: Any,
        dictionary: Any,
        first_type: int,
    ):
        super().__init__()
        self.cfg, self.dictionary, self.first_type = cfg, dictionary, first_type
        self.name, self.floored = process, floored
        self.kind: Any = KINDS[process]
        self.schedule_name = schedule or DEFAULT_SCHEDULE[process]
        self.types = len(dictionary) - first_type
        self.has_graph = issubclass(self.kind, NearestNeighbour)
        informed = SCHEDULES[self.schedule_name].of_information and not self.kind.has_mask
        self.needs_data = informed or self.has_graph
        self.tables: dict[str, torch.Tensor] = {}  # what was computed from the data
        self.task: Any = None  # has the data
        self._process = None if self.needs_data else self._build()

    @classmethod
    def from_config(cls, cfg: Any, dictionary: Any, first_type: int) -> "DataDependentProcess":
        """The process of a DiscreteDiffusionConfig."""
        floored = OBJECTIVES[cfg.objective].reads_logits_as == RATIOS
        return cls(cfg.process, cfg.noise_schedule, floored, cfg, dictionary, first_type)

    @property
    def process(self) -> ForwardProcess:
        """The categorical process.

        Raises:
            UserError: it needs data, and there are none.
        """
        if self._process is None:
            if self.task is None:
                raise UserError(
                    f"--process {self.name} --noise-schedule {self.schedule_name} is computed from "
                    "the training data: train the model, or load a checkpoint"
                )
            self._compute_tables(self.task)
        return self._process

    @translated(
        vocab_size="the size of the target vocabulary",
        embeddings="the values of the embeddings for --process nearest",
    )
    def _compute_tables(self, task: Any) -> None:
        counts = task.target_counts()[self.first_type :]
        if self.has_graph:
            vectors = type_vectors(self.cfg, self.dictionary)[self.first_type :]
            edges, weights, table = neighbour_tables(
                vectors, counts, self.cfg.neighbours, self.schedule_name
            )
            self.tables = {"edges": edges, "weights": weights, "table": table}
        else:
            self.tables = {"table": uniform_mutual_information(counts / counts.sum()).values}
        self._process = self._build()

    def _build(self) -> ForwardProcess:
        if self.has_graph:
            return NearestNeighbour(**self.tables, types=self.types)
        if self.needs_data:
            schedule = Tabulated(self.tables["table"])
        else:
            schedule = SCHEDULES[self.schedule_name].normalised()
        if self.floored and not self.kind.has_mask:
            schedule = Floored(schedule, FLOOR)
        return self.kind(schedule, self.types)

    def get_extra_state(self) -> dict[str, torch.Tensor]:
        """What was computed from the data, for the checkpoint."""
        if self.needs_data and self.task is not None:
            self.process  # noqa: B018  (computes it, so that no checkpoint lacks it)
        return self.tables

    def __deepcopy__(self, memo: dict) -> "DataDependentProcess":
        return self  # nothing in it is trained, and a task is no part of a model

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """What a checkpoint holds.

        Raises:
            UserError: it is of another process.
        """
        needed = {"edges", "weights", "table"} if self.has_graph else {"table"}
        if set(state) != (needed if self.needs_data else set()):
            raise UserError(
                "the checkpoint's diffusion process is another one: give the --process and "
                "--noise-schedule that it was trained with"
            )
        if state:
            self.tables = {name: torch.as_tensor(tensor) for name, tensor in state.items()}
            self._process = self._build()
