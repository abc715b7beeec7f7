"""A distilled data-bin: its files, which appear all at once.

Beside the files of any data-bin it has a manifest, the numbers of the sentences in the raw split,
and a report of the teacher's failures.
"""

import contextlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fairseq.data import Dictionary, indexed_dataset

from difformer_plugin.distillation.settings import RECEIPT, difference
from difformer_plugin.errors import UserError
from difformer_plugin.storage.files import digest_files

# fairseq takes names of three parts for a split if the second has a hyphen; these have none.
MANIFEST, NUMBERS = "distilled.json", "distilled.sentences.npy"
FAILURES = "distilled.failures.tsv"
COLUMNS = "sentence (from 0)\tcause\ttarget\tsource\toutput\n"

Manifest = dict[str, Any]


def work_folder(out: str | PathLike) -> Path:
    """Folder of the journal and the unfinished data-bin of `out`."""
    return Path(f"{out}.unfinished")


def finished_manifest(out: Path, manifest: Manifest) -> Manifest | None:
    """The manifest of `out` if it was distilled with the same setting.

    Args:
        out: the data-bin.
        manifest: what is to be done.
    Returns:
        None if `out` does not exist or is empty.
    Raises:
        UserError: `out` holds something else.
    """
    if (out / MANIFEST).is_file():
        try:
            found = json.loads((out / MANIFEST).read_text("utf-8"))
            theirs = dict(found["setting"])
        except (ValueError, KeyError, TypeError, RecursionError):
            raise UserError(f"{out / MANIFEST} is damaged: remove {out}") from None
        if differs := difference(theirs, manifest["setting"]):
            raise UserError(f"{out} was distilled with {differs}: give another --out or remove it")
        # It is still there if an earlier run was killed after its last step.
        shutil.rmtree(work_folder(out), ignore_errors=True)
        return found
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"--out {out} holds other files: give a folder that is new or empty")
    return None


def finished_work(out: Path, manifest: Manifest) -> Manifest | None:
    """The manifest of `out` as of `finished_manifest`, if its files are those that were written.

    Raises:
        UserError: see there; or one of the files is missing or has changed.
    """
    found = finished_manifest(out, manifest)
    if found is not None:
        written = {**manifest, "written": found.get("written")}
        check_written(out, written, "remove it, and distil again")
    return found


@contextlib.contextmanager
def building(out: Path) -> Iterator[Path]:
    """Yield a folder to write a data-bin to, which becomes `out` when the block succeeds."""
    folder = work_folder(out) / "data-bin"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    yield folder
    for path in [*folder.iterdir(), folder]:
        _sync(path)
    os.replace(folder, out)
    _sync(out.absolute().parent)
    shutil.rmtree(work_folder(out))


def _sync(path: Path) -> None:
    """Force a file or folder to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write(
    folder: Path,
    manifest: Manifest,
    pairs: Iterable[tuple[torch.Tensor, torch.Tensor]],
    numbers: Sequence[int] | np.ndarray,
    report: Iterable[str],
    dictionaries: Sequence[Dictionary],
) -> None:
    """Write the files of a distilled data-bin, except those that are copied.

    Args:
        folder: where to write.
        manifest: its `written` is added.
        pairs: (source, target), tokens with EOS, each (length,).
        numbers: sentence number of each pair in the raw split, (number of pairs,).
        report: lines of the report of failures, without the heading.
        dictionaries: source and target; their sizes decide on the number of bytes per token.
    """
    setting = manifest["setting"]
    stems = [
        [folder / f"{name}.{setting[side]}" for side in ("source", "target")]
        for name in split_names(manifest)
    ]
    builders = [
        [
            indexed_dataset.make_builder(f"{stem}.bin", "mmap", len(dictionary))
            for stem, dictionary in zip(own, dictionaries)
        ]
        for own in stems
    ]
    for pair, split in zip(pairs, split_of_each(manifest, numbers).tolist(), strict=True):
        for builder, tokens in zip(builders[split], pair, strict=True):
            builder.add_item(tokens)
    for builder, stem in zip(chain(*builders), chain(*stems)):
        builder.finalize(f"{stem}.idx")
    np.save(folder / NUMBERS, np.asarray(numbers, dtype=np.int64))
    with open(folder / FAILURES, "w", encoding="utf-8", newline="\n") as file:
        file.write(COLUMNS)
        file.writelines(report)
    manifest = {**manifest, "written": digest_written(folder, manifest)}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", "utf-8")


def split_names(manifest: Manifest) -> list[str]:
    """Names of the distilled splits' files, such as train.de-en and train1.de-en."""
    return [name for name, _ in manifest.get("parts", ())] or [manifest["name"]]


def split_of_each(manifest: Manifest, numbers: Sequence[int] | np.ndarray) -> np.ndarray:
    """Which of the distilled splits each sentence belongs to, counted from 0, (N,).

    Args:
        numbers: the sentences; those of the second split follow those of the first.
    """
    ends = np.cumsum([lines for _, lines in manifest.get("parts", ())])
    return np.searchsorted(ends[:-1], numbers, side="right")


def file_order(manifest: Manifest, numbers: np.ndarray) -> np.ndarray:
    """The order in which sentences, (N,) in the order of writing, stand in the files.

    The files of one split follow those of the other.
    """
    return np.argsort(split_of_each(manifest, numbers), kind="stable")


def written_files(manifest: Manifest) -> list[str]:
    """Names of the files that `write` makes, but for the manifest."""
    setting = manifest["setting"]
    sides = [f"{n}.{setting[side]}" for n in split_names(manifest) for side in ("source", "target")]
    return [*(f"{stem}.{end}" for stem in sides for end in ("idx", "bin")), NUMBERS, FAILURES]


def digest_written(folder: Path, manifest: Manifest) -> str:
    """Digest of the files that `write` makes, to find incomplete copies."""
    return digest_files([folder / name for name in written_files(manifest)])


def check_written(folder: Path, manifest: Manifest, remedy: str) -> None:
    """Check that a distilled data-bin or shard is as it was written.

    Raises:
        UserError: a file is missing or has changed.
    """
    setting = manifest["setting"]
    dictionaries = [f"dict.{setting[side]}.txt" for side in ("source", "target")]
    for name in (*dictionaries, *written_files(manifest)):
        if not (folder / name).is_file():
            raise UserError(f"{folder} is not as it was written, {name} is missing: {remedy}")
    if manifest.get("written") not in (None, digest_written(folder, manifest)):
        files = ", ".join(written_files(manifest))
        raise UserError(f"{folder} is not as it was written, one of {files} differs: {remedy}")


def copy_rest(data: str | PathLike, folder: Path, names: Iterable[str]) -> None:
    """Copy everything in a data-bin but what is distilled: dictionaries, other splits and so on.

    Args:
        data: the raw data-bin.
        folder: where to copy to.
        names: of the distilled splits' files, such as train.de-en.
    """
    # Alignments belong to the raw targets.
    own = [start for n in names for start in (f"{n}.", f"{n.partition('.')[0]}.align.")]
    left_out = (*own, MANIFEST, NUMBERS, FAILURES, RECEIPT)
    for path in sorted(Path(data).iterdir()):
        if path.is_file() and not path.name.startswith(left_out):
            shutil.copyfile(path, folder / path.name)
