"""Predictions recorded as CUDA graphs: one launch a step, where a small batch waits for hundreds.

A recording is for one shape and reads its inputs from tensors of its own. A shape is recorded when
it comes for the second time; where recording fails, decoding goes on without, and says so once.
"""

import logging
from collections import OrderedDict

import torch

from difformer_plugin.networks.layers import Conditions
from difformer_plugin.networks.layout import Layout

logger = logging.getLogger(__name__)

MAX_RECORDINGS = 64  # that are kept, the last ones used
MAX_TOKENS = 2**13  # of a batch; beyond it the cost of launches no longer matters


def record_on_gpu(function):
    """Record a function without arguments: what replays it, and the tensor that it returns."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # lazy initialisations must not be recorded
        for _ in range(2):
            function()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = function()
    return graph.replay, output


class Recorded:
    """A model's prediction for one shape of layout and conditions, replayed.

    Args:
        model: a diffusion model.
        layout, conditions: of the shape.
        record: as `record_on_gpu`.
    """

    def __init__(self, model, layout, conditions, record):
        device = layout.device
        self.layout = Layout(
            layout.candidates.lengths.tolist(), layout.owners, device, layout.mask.clone()
        )
        self.conditions = Conditions(
            [(keys.clone(), values.clone()) for keys, values in conditions.layers],
            conditions.mask.clone(),
        )
        self.z, self.previous = model.blank(layout.candidates.total, device)
        self.time = torch.zeros(1, dtype=torch.float64, device=device)
        self.replay, self.output = record(
            lambda: model.predict(self.z, self.time, self.layout, self.conditions, self.previous)
        )

    def begin(self, layout, conditions):
        """Take other sentences of the same shape."""
        self.layout.mask.copy_(layout.mask)
        self.conditions.mask.copy_(conditions.mask)
        for mine, theirs in zip(self.conditions.layers, conditions.layers):
            for tensor, value in zip(mine, theirs):
                tensor.copy_(value)

    def predict(self, z, time, previous):
        """As the model's `predict` for the sentences of `begin`."""
        self.z.copy_(z)
        self.time.fill_(time)
        self.previous.zero_() if previous is None else self.previous.copy_(previous)
        self.replay()
        return self.output.clone()


class Recordings:
    """The recordings of a model's predictions, by shape; they live as long as its weights do."""

    def __init__(self, record=record_on_gpu):
        self.record, self.works = record, True
        self.met, self.kept = set(), OrderedDict()

    def find(self, model, layout, conditions):
        """What predicts for these sentences by replaying, or None where nothing does."""
        even = layout.candidates.even and layout.sentences.even
        if not self.works or not even or layout.candidates.total > MAX_TOKENS:
            return None
        rows = layout.candidates
        shape = (rows.count, rows.width, tuple(conditions.mask.shape), conditions.dtype)
        if shape not in self.met:
            self.met.add(shape)
            return None
        if shape not in self.kept:
            try:
                self.kept[shape] = Recorded(model, layout, conditions, self.record)
            except RuntimeError as error:
                self.works = False
                logger.warning(f"decoding goes on without CUDA graphs: {error}")
                return None
        self.kept.move_to_end(shape)
        if len(self.kept) > MAX_RECORDINGS:
            self.kept.popitem(last=False)
        self.kept[shape].begin(layout, conditions)
        return self.kept[shape].predict
