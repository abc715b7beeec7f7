"""The sentences of a split in batches, for commands that decode without fairseq-generate."""

from typing import Any

import numpy as np
import torch
from fairseq import utils
from fairseq.tasks import FairseqTask

from difformer_plugin.errors import UserError


def load_batches(
    task: FairseqTask,
    data: str,
    split: str,
    batch_size: int,
    max_positions: tuple[int, int],
    device: torch.device,
    num_sentences: int | None = None,
) -> list[dict[str, Any]]:
    """The samples of a split, sorted by source length, then by target length.

    Args:
        task: of a diffusion model.
        data: the data-bin, for messages.
        batch_size: sentences of a sample.
        max_positions: the longest source and target, in tokens.
        num_sentences: take only so many, evenly spread over the sorted ones.
    Returns:
        fairseq's samples on the device, with targets.
    Raises:
        UserError: the split has no sentences or no targets, or a sentence is too long.
    """
    task.load_dataset(split)
    dataset = task.dataset(split)
    if dataset.tgt is None:
        raise UserError(f"{data}: {split} has no targets to score against")
    # not dataset.ordered_indices(), which shuffles sentences of equal length
    order = np.lexsort((dataset.tgt_sizes, dataset.src_sizes))
    order = task.filter_indices_by_size(order, dataset, max_positions)
    if len(order) == 0:
        raise UserError(f"{data}: {split} has no sentences")
    if num_sentences and num_sentences < len(order):
        order = order[np.linspace(0, len(order) - 1, num_sentences).round().astype(int)]
    parts = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    return [
        utils.apply_to_sample(
            lambda tensor: tensor.to(device), dataset.collater([dataset[i] for i in part])
        )
        for part in parts
    ]
