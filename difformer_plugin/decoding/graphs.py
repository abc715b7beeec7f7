"""Predictions recorded as CUDA graphs: one launch a step, where a small batch waits for hundreds.

A recording is for one shape and reads its inputs from tensors of its own. A shape is recorded when
it comes for the second time; where recording fails, decoding goes on without, and says so once.
"""

import logging
from collections import OrderedDict

import torch

from difformer_plugin.networks.layers import Context
from difformer_plugin.networks.layout import Layout

logger = logging.getLogger(__name__)

MOST = 64  # recordings that are kept, the last ones used
TOKENS = 2**13  # beyond so many tokens launches no longer count


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
    """A model's prediction for one shape of layout and context, replayed.

    Args:
        model: a diffusion model.
        layout, context: of the shape.
        record: as `record_on_gpu`.
    """

    def __init__(self, model, layout, context, record):
        device = layout.device
        self.layout = Layout(
            layout.candidates.lengths.tolist(), layout.owners, device, layout.mask.clone()
        )
        self.context = Context(
            [(keys.clone(), values.clone()) for keys, values in context.layers],
            context.mask.clone(),
        )
        self.z, self.previous = model.blank(layout.candidates.total, device)
        self.timestep = torch.zeros(1, device=device)
        self.replay, self.output = record(
            lambda: model.predict(self.z, self.timestep, self.layout, self.context, self.previous)
        )

    def begin(self, layout, context):
        """Take other sentences of the same shape."""
        self.layout.mask.copy_(layout.mask)
        self.context.mask.copy_(context.mask)
        for mine, theirs in zip(self.context.layers, context.layers):
            for tensor, value in zip(mine, theirs):
                tensor.copy_(value)

    def predict(self, z, timestep, previous):
        """As the model's `predict` for the sentences of `begin`."""
        self.z.copy_(z)
        self.timestep.fill_(timestep)
        self.previous.zero_() if previous is None else self.previous.copy_(previous)
        self.replay()
        return self.output.clone()


class Recordings:
    """The recordings of a model's predictions, by shape; they live as long as its weights do."""

    def __init__(self, record=record_on_gpu):
        self.record, self.works = record, True
        self.met, self.kept = set(), OrderedDict()

    def find(self, model, layout, context):
        """What predicts for these sentences by replaying, or None where nothing does."""
        even = layout.candidates.even and layout.sentences.even
        if not self.works or not even or layout.candidates.total > TOKENS:
            return None
        rows = layout.candidates
        shape = (rows.count, rows.width, tuple(context.mask.shape), context.dtype)
        if shape not in self.met:
            self.met.add(shape)
            return None
        if shape not in self.kept:
            try:
                self.kept[shape] = Recorded(model, layout, context, self.record)
            except RuntimeError as error:
                self.works = False
                logger.warning(f"decoding goes on without CUDA graphs: {error}")
                return None
        self.kept.move_to_end(shape)
        if len(self.kept) > MOST:
            self.kept.popitem(last=False)
        self.kept[shape].begin(layout, context)
        return self.kept[shape].predict
