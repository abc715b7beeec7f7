"""The forward process of a discrete diffusion model, with what it has learned of the data."""

import torch
from torch import nn

from difformer_plugin.diffusion.categorical.neighbours import Neighbours, prepare
from difformer_plugin.diffusion.categorical.process import Absorbing, Uniform
from difformer_plugin.diffusion.categorical.schedules import (
    MUTUAL_INFORMATION,
    SCHEDULES,
    Floored,
    LogLinear,
    Tabulated,
    mutual_information,
)
from difformer_plugin.errors import UserError
from difformer_plugin.families.tokens.config import SCHEDULE
from difformer_plugin.families.tokens.type_vectors import type_vectors

FLOOR = 1e-3  # what is left at the end of score-based uniform diffusion, whose rate is finite


class Chain(nn.Module):
    """The process over the types of the target, from the configuration or from a checkpoint.

    The mutual-information schedule of other than absorbing processes depends on the data, and the
    graph of neighbours on embeddings. Both are made when the process is first needed, unless a
    checkpoint was loaded before: they are kept in every one.

    Args:
        cfg: DiscreteDiffusionConfig.
        dictionary: of the target; first: its first type that can be corrupted.
    """

    def __init__(self, cfg, dictionary, first):
        super().__init__()
        self.cfg, self.dictionary, self.first = cfg, dictionary, first
        self.types = len(dictionary) - first
        self.name = cfg.noise_schedule or SCHEDULE[cfg.process]
        informed = self.name == MUTUAL_INFORMATION and cfg.process != "absorbing"
        self.learns = informed or cfg.process == "nearest"
        self.made, self.task = {}, None
        self._process = None if self.learns else self._build()

    @property
    def process(self):
        """categorical.Process."""
        if self._process is None:
            if self.task is None:
                raise UserError(
                    f"--process {self.cfg.process} --noise-schedule {self.name} is made from the "
                    "data of a training: train the model, or load a checkpoint"
                )
            self._learn(self.task)
        return self._process

    def _learn(self, task):
        counts = task.target_counts()[self.first :]
        if self.cfg.process == "nearest":
            vectors = type_vectors(self.cfg, self.dictionary)[self.first :]
            edges, weights, table = prepare(vectors, counts, self.cfg.neighbours, self.name)
            self.made = {"edges": edges, "weights": weights, "table": table}
        else:
            self.made = {"table": mutual_information(counts / counts.sum()).values}
        self._process = self._build()

    def _build(self):
        if self.cfg.process == "nearest":
            return Neighbours(**self.made, types=self.types)
        if self.cfg.process == "absorbing":
            schedule = LogLinear() if self.name == MUTUAL_INFORMATION else SCHEDULES[self.name]()
            return Absorbing(schedule, self.types)
        schedule = Tabulated(self.made["table"]) if self.learns else SCHEDULES[self.name]()
        if self.cfg.objective == "sedd":
            schedule = Floored(schedule, FLOOR)
        return Uniform(schedule, self.types)

    def get_extra_state(self):
        """What was made of the data, for the checkpoint."""
        if self.learns and self.task is not None:
            self.process  # noqa: B018  (no checkpoint without it)
        return self.made

    def __deepcopy__(self, memo):
        return self  # nothing in it is trained, and a task is no part of a model

    def set_extra_state(self, state):
        """What a checkpoint has."""
        wanted = {"edges", "weights", "table"} if self.cfg.process == "nearest" else {"table"}
        if set(state) != (wanted if self.learns else set()):
            raise UserError(
                "the checkpoint's diffusion process is another one: give the --process and "
                "--noise-schedule that it was trained with"
            )
        if state:
            self.made = {name: torch.as_tensor(tensor) for name, tensor in state.items()}
            self._process = self._build()
