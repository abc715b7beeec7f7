"""Record predictions as CUDA graphs, so that a decoding step is one launch instead of hundreds.

A recording belongs to one shape of the inputs and reads them from buffers of its own. A shape is
recorded when it occurs for the second time. If recording fails, decoding continues without CUDA
graphs and logs a single warning.
"""

import logging
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch

from difformer_plugin.decoding.loop import Predict
from difformer_plugin.families.contract import Family
from difformer_plugin.networks.layers import Conditions
from difformer_plugin.networks.layout import Layout

logger = logging.getLogger(__name__)

MAX_RECORDINGS = 64  # when there are more, the least recently used one is dropped
MAX_TOKENS = 2**13  # larger batches are not recorded: the cost of launches does not matter there

# Records a function: returns a function that replays it, and the tensor that a replay overwrites.
Record = Callable[[Callable[[], torch.Tensor]], tuple[Callable[[], Any], torch.Tensor]]


def record_on_gpu(
    function: Callable[[], torch.Tensor],
) -> tuple[Callable[[], Any], torch.Tensor]:
    """Record a function without arguments as a CUDA graph.

    Returns:
        a function that replays the graph, and the tensor that receives its result.
    Raises:
        RuntimeError: the function does something that a graph cannot record.
    """
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # warm-up: lazy initialisation must not be recorded
        for _ in range(2):
            function()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = function()
    return graph.replay, output


class RecordedPrediction:
    """A model's prediction, recorded for one shape of layout and conditions.

    Args:
        model: a diffusion model.
        layout: a layout of this shape; its candidates all have the same length.
        conditions: conditions of this shape.
        record: how to record a function.
    """

    def __init__(self, model: Family, layout: Layout, conditions: Conditions, record: Record):
        device = layout.device
        self.layout = Layout(
            layout.candidates.lengths.tolist(), layout.owners, device, layout.mask.clone()
        )
        self.conditions = conditions.clone()
        self.z, self.previous = model.blank(layout.candidates.total, device)
        self.time = torch.zeros(1, dtype=torch.float64, device=device)
        self.absent = torch.zeros(1, dtype=torch.bool, device=device)
        self.replay, self.output = record(
            lambda: model.predict(
                self.z, self.time, self.layout, self.conditions, self.previous, self.absent
            )
        )

    def begin(self, layout: Layout, conditions: Conditions) -> None:
        """Copy the masks and conditions of other sentences of the same shape to the buffers."""
        self.layout.mask.copy_(layout.mask)
        for buffer, value in zip(self.conditions.tensors(), conditions.tensors()):
            buffer.copy_(value)

    def predict(self, z: Any, time: float, previous: torch.Tensor | None) -> torch.Tensor:
        """Replay the model's prediction for the sentences given to `begin`.

        Arguments and result are those of `Family.predict`.
        """
        self.z.copy_(z)
        self.time.fill_(time)
        self.absent.fill_(previous is None)
        if previous is None:
            self.previous.zero_()
        else:  # a prediction may hold more than is read of it
            self.previous.copy_(previous[:, : self.previous.shape[1]])
        self.replay()
        return self.output.clone()


class Recordings:
    """The recorded predictions of a model, by shape; they are valid until its weights change.

    Args:
        record: how to record a function.

    Attributes:
        enabled: whether recording has never failed.
        seen: the shapes that occurred at least once.
        by_shape: the recordings, the least recently used one first.
    """

    def __init__(self, record: Record = record_on_gpu):
        self.record, self.enabled = record, True
        self.seen: set[tuple] = set()
        self.by_shape: OrderedDict[tuple, RecordedPrediction] = OrderedDict()

    def find(self, model: Family, layout: Layout, conditions: Conditions) -> Predict | None:
        """Find or make the recording for the shape of a batch.

        Returns:
            a function that predicts for this batch by replaying; None if the batch has to be
            predicted without a recording.
        """
        even = layout.candidates.even and layout.sentences.even
        if not self.enabled or not even or layout.candidates.total > MAX_TOKENS:
            return None
        rows = layout.candidates
        shape = (rows.count, rows.width, tuple(conditions.mask.shape), conditions.precision)
        if shape not in self.seen:
            self.seen.add(shape)
            return None
        if shape not in self.by_shape:
            try:
                recorded = RecordedPrediction(model, layout, conditions, self.record)
            except RuntimeError as error:
                self.enabled = False
                logger.warning(f"decoding continues without CUDA graphs: {error}")
                return None
            self.by_shape[shape] = recorded
        self.by_shape.move_to_end(shape)
        if len(self.by_shape) > MAX_RECORDINGS:
            self.by_shape.popitem(last=False)
        self.by_shape[shape].begin(layout, conditions)
        return self.by_shape[shape].predict
