"""What the benchmark scripts share: loading models and sentences, and the lengths of candidates."""

import logging
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from fairseq import checkpoint_utils
from fairseq.data import data_utils
from fairseq.tasks import FairseqTask
from tqdm import tqdm

from difformer_plugin import register
from difformer_plugin.decoding.candidates import FRAME, length_beam
from difformer_plugin.families.contract import Family
from difformer_plugin.networks.layers import Memory

BPE = "@@ "  # how subwords are joined


def load(data: str, paths: Sequence[str], subset: str) -> tuple[list[Any], FairseqTask]:
    """Load the models of checkpoints in evaluation mode, and a split of a data-bin.

    Returns:
        the models, and the task of the last one, with the split loaded.
    """
    register()
    logging.getLogger().setLevel(logging.WARNING)
    models = []
    for path in paths:
        (model,), _, task = checkpoint_utils.load_model_ensemble_and_task(
            [path], arg_overrides={"data": data}
        )
        models.append(model.eval())
    task.load_dataset(subset)
    return models, task


def spread_by_length(dataset: Any, count: int | None) -> np.ndarray:
    """Numbers of `count` sentences, spread evenly over all lengths; None for all sentences.

    They are the same in every run: fairseq shuffles sentences of equal lengths at random.
    """
    with data_utils.numpy_seed(1):
        order = dataset.ordered_indices()
    return order[np.linspace(0, len(order) - 1, count or len(order)).astype(int)]


def batches(dataset: Any, numbers: np.ndarray, size: int) -> Iterator[dict[str, Any]]:
    """Batches of these sentences, with a progress bar."""
    for start in tqdm(range(0, len(numbers), size), disable=None):
        yield dataset.collater([dataset[i] for i in numbers[start : start + size]])


def candidate_lengths(model: Family, memory: Memory, beams: tuple[int, int]) -> torch.Tensor:
    """The lengths of all candidates, int64 (B, b1 x b2).

    Args:
        beams: (b1, b2), the numbers of lengths and of noises.
    """
    if model.predicts_length:
        predictor = model.length_predictor
        longest = model.max_positions()[1]
        lengths = length_beam(predictor(memory), predictor.lengths(memory), beams[0], longest)
    else:  # targets grow from BOS and EOS
        lengths = torch.full_like(memory.lengths(), FRAME)[:, None]
    return lengths.repeat_interleave(beams[1], dim=1)
