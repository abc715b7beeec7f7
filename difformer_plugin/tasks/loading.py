"""Load data sets from a data-bin folder, count their types, and check the lengths of sentences."""

import logging
from typing import Any

import numpy as np
import torch
from fairseq import utils
from fairseq.data import Dictionary, LanguagePairDataset
from fairseq.data.data_utils import load_indexed_dataset
from fairseq.tasks.translation import load_langpair_dataset

from difformer_plugin.data.data_bin_files import check_dataset, numbered_splits, stem_of
from difformer_plugin.errors import UserError

logger = logging.getLogger(__name__)
MAX_COUNTED = 100_000  # sentences from which type frequencies are estimated


def load_split(
    cfg: Any, split: str, epoch: int, dictionaries: tuple[Dictionary, Dictionary], combine: bool
) -> LanguagePairDataset:
    """Load a split, with BOS before each source.

    Args:
        cfg: the task's configuration. If it names several data folders, training reads one of them
            per epoch in turn, and the other splits come from the first.
        split: the name of the split.
        epoch: counted from 1.
        dictionaries: of source and target.
        combine: whether to append train1, train2, ... to train.
    Raises:
        UserError: a file is missing or damaged.
    """
    paths = utils.split_paths(cfg.data)
    rotates = split == cfg.train_subset
    path = paths[(epoch - 1) % len(paths)] if rotates else paths[0]
    if cfg.dataset_impl != "raw":
        # at the start of training all folders are checked, also those of later epochs
        for folder in paths if rotates and epoch == 1 else [path]:
            _check_splits(cfg, folder, split, dictionaries, combine)
    return load_langpair_dataset(
        path,
        split,
        cfg.source_lang,
        dictionaries[0],
        cfg.target_lang,
        dictionaries[1],
        combine=combine,
        dataset_impl=cfg.dataset_impl,
        upsample_primary=cfg.upsample_primary,
        left_pad_source=cfg.left_pad_source,
        left_pad_target=cfg.left_pad_target,
        # Only used to truncate sources, which happens before BOS is added.
        max_source_positions=cfg.max_source_positions - 1,
        max_target_positions=cfg.max_target_positions,
        truncate_source=cfg.truncate_source,
        num_buckets=cfg.num_batch_buckets,
        shuffle=split != "test",
        pad_to_multiple=cfg.required_seq_len_multiple,
        prepend_bos=True,
    )


def _check_splits(
    cfg: Any,
    folder: str,
    split: str,
    dictionaries: tuple[Dictionary, Dictionary],
    combine: bool,
) -> None:
    """Check the files of a split and, if they are to be combined, of split1, split2, ...

    Raises:
        UserError: a file is missing or damaged, has tokens that the dictionary has not, or only
            some of the splits have targets.
    """
    pair = cfg.source_lang, cfg.target_lang
    splits = [split, *(numbered_splits(folder, split, *pair) if combine else ())]
    for each in splits:
        check_dataset(folder, each, *pair, (len(dictionaries[0]), len(dictionaries[1])))
    without = [each for each in splits if stem_of(folder, each, *pair, pair[1]) is None]
    if 0 < len(without) < len(splits):
        raise UserError(
            f"{folder}: {without[0]} has no targets, and others of {', '.join(splits)}, which are "
            "used together, have them: binarise both sides of each"
        )


def count_types(cfg: Any, dictionary: Dictionary) -> torch.Tensor:
    """Count how often each type occurs in the training targets of the first data folder.

    Of more than 100,000 sentences, 100,000 at equal distances are counted.

    Args:
        cfg: the task's configuration.
        dictionary: the target dictionary.
    Returns:
        float64 (V,).
    Raises:
        UserError: there are no training targets.
    """
    path, source, target = utils.split_paths(cfg.data)[0], cfg.source_lang, cfg.target_lang
    for pair in (f"{source}-{target}", f"{target}-{source}"):
        prefix = f"{path}/{cfg.train_subset}.{pair}.{target}"
        targets = load_indexed_dataset(prefix, dictionary, cfg.dataset_impl)
        if targets is not None:
            break
    else:
        raise UserError(
            f"{path} has no targets of the split {cfg.train_subset}, from which this model counts "
            "type frequencies: train on a data-bin that has them"
        )
    counted = np.linspace(0, len(targets) - 1, min(len(targets), MAX_COUNTED)).astype(int)
    tokens = torch.cat([targets[i].long() for i in counted])
    return torch.bincount(tokens, minlength=len(dictionary)).double()


def filter_by_size(indices: Any, dataset: Any, max_positions: Any, skip: bool) -> Any:
    """Refuse sentences that are longer than the position tables, or skip them.

    Args:
        indices: the sentences, int64 (n,).
        dataset: a fairseq data set.
        max_positions: the lengths of the position tables of source and target.
        skip: whether the user asked to skip them.
    Returns:
        the indices of the other sentences.
    Raises:
        UserError: there is such a sentence and it may not be skipped, or none is left.
    """
    kept, ignored = dataset.filter_indices_by_size(indices, max_positions)
    if len(ignored) == 0:
        return kept
    if not skip:
        first = ignored[0]
        sizes = ", ".join(str(size) for size in np.atleast_1d(dataset.size(first)))
        raise UserError(
            f"sentence {first} (counted from 0) has {sizes} tokens (source, target), more than the "
            f"position tables hold, {max_positions}; {len(ignored)} such sentences: shorten them, "
            "train with greater --max-source-positions and --max-target-positions, or skip them "
            "with --skip-invalid-size-inputs-valid-test"
        )
    if len(kept) == 0 and len(ignored) > 1:
        raise UserError(
            f"all {len(ignored)} sentences are longer than the position tables, {max_positions}: "
            "no sentence is left"
        )
    logger.warning(
        f"skipped {len(ignored):,} sentences longer than {max_positions}, the first of them: "
        f"{list(ignored[:10])}"
    )
    return kept
