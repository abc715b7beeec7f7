"""Merge the shards of a distillation, as if it had been done in one run."""

import json
from collections.abc import Callable, Iterable, Sequence
from os import PathLike
from pathlib import Path

import numpy as np
from fairseq.data import ConcatDataset, Dictionary
from fairseq.data.data_utils import load_indexed_dataset

from difformer_plugin.distillation.distilled_data_bin import (
    FAILURES,
    MANIFEST,
    NUMBERS,
    Manifest,
    building,
    check_written,
    copy_rest,
    file_order,
    split_names,
    work_folder,
    write,
)
from difformer_plugin.distillation.settings import difference
from difformer_plugin.distillation.tally import Tally
from difformer_plugin.errors import UserError


def read_shards(folders: Iterable[str | PathLike]) -> list[Manifest]:
    """Read the manifests of all shards of one distillation.

    Args:
        folders: of the shards, in any order.
    Returns:
        the manifests in the order of the shards, with `folder` added.
    Raises:
        UserError: a folder is not a shard, does not belong to the others, is missing, or occurs
            twice.
    """
    shards = {}
    for folder in map(Path, folders):
        try:
            manifest = json.loads((folder / MANIFEST).read_text("utf-8"))
            setting = dict(manifest["setting"])
            shard, of = map(int, setting.pop("--shard").split("/"))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            unfinished = work_folder(folder).is_dir()
            remedy = "run its command again" if unfinished else "give the --out of each shard"
            raise UserError(f"{folder} holds no finished shard: {remedy}") from None
        if of == 1:
            raise UserError(f"{folder} is a complete data-bin, not a shard: there is nothing to do")
        if not shards:
            first, expected, count = folder, setting, of
        elif differs := difference(setting, expected):
            raise UserError(f"{folder} does not belong to {first}: it has {differs}")
        elif of != count:
            raise UserError(f"{folder} is shard {shard}/{of}, but {first} is one of {count}")
        if shard in shards:
            raise UserError(f"{folder} and {shards[shard]['folder']} are both shard {shard}/{of}")
        shards[shard] = {**manifest, "folder": folder}
    if missing := [f"{i}/{count}" for i in range(count) if i not in shards]:
        raise UserError(f"shards are missing: {', '.join(missing)}; give the --out of every shard")
    return [shards[i] for i in range(count)]


def merged_manifest(shards: Sequence[Manifest]) -> Manifest:
    """The manifest of all shards together, without the tally."""
    left_out = {"folder", "tally", "written"}
    manifest = {name: value for name, value in shards[0].items() if name not in left_out}
    return {**manifest, "setting": {**manifest["setting"], "--shard": "0/1"}}


def check_complete(shards: Iterable[Manifest]) -> None:
    """Check that the files of each shard are those that were written.

    Raises:
        UserError: a copy is incomplete or damaged.
    """
    for shard in shards:
        try:
            check_written(shard["folder"], shard, "copy the shard again")
        except KeyError:
            damaged = shard["folder"] / MANIFEST
            raise UserError(f"{damaged} is damaged: copy the shard again") from None


def _load(folder: Path, names: Sequence[str], side: str) -> ConcatDataset | None:
    """One side of a shard's splits, one after the other; None if all are empty."""
    stems = [folder / f"{name}.{side}" for name in names]
    # fairseq cannot open empty files
    found = [load_indexed_dataset(str(s)) for s in stems if Path(f"{s}.bin").stat().st_size]
    return ConcatDataset(found) if found else None


def merge_shards(
    shards: Sequence[Manifest],
    out: Path,
    dictionaries: Sequence[Dictionary],
    progress: Callable[[Iterable, int], Iterable],
) -> Manifest:
    """Merge shards in the order of the raw split, as if there had been one.

    Args:
        shards: result of `read_shards`.
        out: the data-bin to write.
        dictionaries: source and target.
        progress: wraps the iteration over the pairs; called with it and their number.
    Returns:
        the manifest of `out`.
    Raises:
        UserError: the shards do not hold each sentence exactly once.
    """
    tally, names = Tally(), split_names(shards[0])
    setting = shards[0]["setting"]
    sides = [setting["source"], setting["target"]]
    columns, data, report = [], [], []  # columns: (is raw, sentence, shard, row in the shard)
    for i, shard in enumerate(shards):
        folder = shard["folder"]
        tally.add(shard["tally"])
        numbers = np.load(folder / NUMBERS)
        is_raw = np.arange(len(numbers)) >= len(numbers) - shard["tally"]["raw"]
        rows = np.empty(len(numbers), dtype=np.int64)
        rows[file_order(shard, numbers)] = np.arange(len(numbers))
        columns.append(np.stack([is_raw, numbers, np.full_like(rows, i), rows]))
        data.append([_load(folder, names, side) for side in sides])
        with open(folder / FAILURES, encoding="utf-8", newline="\n") as file:
            report += list(file)[1:]
    places = np.concatenate(columns, axis=1)  # (4, N)
    order = np.lexsort((places[1], places[0]))
    distilled = places[1][places[0] == 0]
    lines = shards[0]["lines"]
    if len(np.unique(distilled)) != len(distilled) or len(distilled) + tally.dropped != lines:
        raise UserError(f"the shards do not hold each of {lines} sentences once: distil them again")
    manifest = {**merged_manifest(shards), "tally": vars(tally)}
    pairs = (tuple(side[row] for side in data[i]) for _, _, i, row in places[:, order].T.tolist())
    with building(out) as folder:
        copy_rest(shards[0]["folder"], folder, names)
        report.sort(key=lambda line: int(line.split("\t")[0]))
        numbers = places[1][order]
        write(folder, manifest, progress(pairs, len(order)), numbers, report, dictionaries)
    return manifest
