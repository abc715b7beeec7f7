"""Load data sets from a data-bin folder, count their types, and check the lengths of sentences."""

import logging
from typing import Any

import numpy as np
import torch
from fairseq import utils
from fairseq.data import ConcatDataset, Dictionary, LanguagePairDataset
from fairseq.data.data_utils import load_indexed_dataset
from fairseq.tasks.translation import load_langpair_dataset

from difformer_plugin.data.data_bin_files import check_dataset, numbered_splits, stem_of
from difformer_plugin.data.indexed import CACHED, LAZY, implementation
from difformer_plugin.errors import UserError

logger = logging.getLogger(__name__)
NOT_GIVEN = -1  # the default of --upsample-primary
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
    kind = dataset_format(path, split, cfg)
    if kind != "raw":
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
        dataset_impl=kind,
        upsample_primary=upsampling(cfg),
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
        UserError: a file is missing or damaged, has tokens that are not in the dictionary, or
            only some of the splits have targets.
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


def upsampling(cfg: Any) -> int:
    """How many times an epoch has the split `train`, beside train1, train2 and so on.

    fairseq's default, -1, fails where there are several splits. Here it stands for 1.

    Args:
        cfg: the task's configuration.
    Raises:
        UserError: it is another number below 1.
    """
    if cfg.upsample_primary < 1 and cfg.upsample_primary != NOT_GIVEN:
        raise UserError(f"--upsample-primary must be at least 1, not {cfg.upsample_primary}")
    return max(1, cfg.upsample_primary)


def dataset_format(path: str, split: str, cfg: Any) -> str | None:
    """The format in which fairseq is to read a split, None if it shall look itself.

    Args:
        path: a data-bin; split: the name of a split; cfg: the task's configuration.
    Raises:
        UserError: its files have another format than --dataset-impl says.
    """
    given = cfg.dataset_impl and str(cfg.dataset_impl)
    source, target = cfg.source_lang, cfg.target_lang
    for pair in (f"{source}-{target}", f"{target}-{source}"):
        prefix = f"{path}/{split}.{pair}.{source}"
        found = implementation(prefix)
        if found is None:
            continue
        if given and found != (LAZY if given == CACHED else given):
            raise UserError(
                f"--dataset-impl {given} does not read {prefix}, which is in the format {found}: "
                "omit the option"
            )
        return LAZY if found == LAZY else given
    return given


def count_types(cfg: Any, dictionary: Dictionary) -> torch.Tensor:
    """Count how often each type occurs in the training targets of the first data folder.

    Of more than 100,000 sentences, 100,000 at equal distances are counted. Sentences of several
    splits (train, train1, ...) count as often as training reads them.

    Args:
        cfg: the task's configuration.
        dictionary: the target dictionary.
    Returns:
        float64 (V,).
    Raises:
        UserError: there are no training targets.
    """
    path, split = utils.split_paths(cfg.data)[0], cfg.train_subset
    splits = [split, *numbered_splits(path, split, cfg.source_lang, cfg.target_lang)]
    found = [_load_targets(path, each, cfg, dictionary) for each in splits]
    if any(targets is None for targets in found):
        raise UserError(
            f"{path} has no targets of the split {split}, from which this model counts type "
            "frequencies: train on a data-bin that has them"
        )
    targets = found[0]
    if len(found) > 1:
        targets = ConcatDataset(found, [upsampling(cfg), *[1] * (len(found) - 1)])
    counted = np.linspace(0, len(targets) - 1, min(len(targets), MAX_COUNTED)).astype(int)
    tokens = torch.cat([targets[i].long() for i in counted])
    return torch.bincount(tokens, minlength=len(dictionary)).double()


def _load_targets(path: str, split: str, cfg: Any, dictionary: Dictionary) -> Any:
    """The targets of a split, None if there are none."""
    source, target = cfg.source_lang, cfg.target_lang
    kind = dataset_format(path, split, cfg)
    for pair in (f"{source}-{target}", f"{target}-{source}"):
        targets = load_indexed_dataset(f"{path}/{split}.{pair}.{target}", dictionary, kind)
        if targets is not None:
            return targets
    return None


def filter_by_size(
    indices: Any, dataset: Any, max_positions: Any, skip: bool, max_tokens: int | None = None
) -> Any:
    """Refuse sentences that are longer than the position tables or than a batch, or skip them.

    Args:
        indices: the sentences, int64 (n,).
        dataset: a fairseq data set.
        max_positions: the lengths of the position tables of source and target, or less.
        skip: whether the user asked to skip them.
        max_tokens: of a batch; None: any number.
    Returns:
        the indices of the other sentences.
    Raises:
        UserError: there is such a sentence and it may not be skipped, or none is left.
    """
    too_large = indices[:0]
    if max_tokens is not None:
        large = dataset.num_tokens_vec(indices) > max_tokens
        indices, too_large = indices[~large], indices[large]
    kept, too_long = dataset.filter_indices_by_size(indices, max_positions)
    limits = (
        (
            too_large,
            f"a batch may have, --max-tokens {max_tokens}",
            "raise it (for validation during training: --max-tokens-valid)",
        ),
        (
            too_long,
            f"the position tables hold, {max_positions}",
            "shorten them, train with greater --max-source-positions and --max-target-positions",
        ),
    )
    for ignored, limit, remedy in limits:
        if len(ignored) == 0:
            continue
        if not skip:
            first = ignored[0]
            sizes = ", ".join(str(size) for size in np.atleast_1d(dataset.size(first)))
            raise UserError(
                f"sentence {first} (counted from 0) has {sizes} tokens (source, target), more than "
                f"{limit}; {len(ignored)} such sentences: {remedy}, or skip them with "
                "--skip-invalid-size-inputs-valid-test"
            )
        if len(kept) == 0 and len(too_large) + len(too_long) > 1:
            raise UserError(
                f"no sentence is left: {len(ignored)} have more tokens than {limit}: {remedy}"
            )
        logger.warning(
            f"skipped {len(ignored):,} sentences with more tokens than {limit}, the first of them: "
            f"{list(ignored[:10])}"
        )
    return kept


def check_shard(iterator: Any, shards: int, shard: int) -> None:
    """Check that a shard of fairseq-generate has something to translate.

    Args:
        iterator: fairseq's, over all batches of a split.
        shards: how many shards there are; shard: which one, from 0.
    Raises:
        UserError: there are too few batches. (In training fairseq fills up itself.)
    """
    if shards == 1 or torch.distributed.is_initialized():
        return
    batches = len(iterator.frozen_batches)
    if shard >= batches:
        raise UserError(
            f"--num-shards {shards}: there are only {batches} batches, so that shard {shard} has "
            "none: use fewer shards, or a smaller --max-tokens or --batch-size"
        )
