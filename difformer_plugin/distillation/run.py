"""The work of `difformer distill`: decode, choose targets, write; or merge shards."""

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from fairseq.data import Dictionary
from tqdm import tqdm

from difformer_plugin.data.data_bin_pairs import DataBinPairs, Part
from difformer_plugin.distillation import distilled_data_bin as distilled
from difformer_plugin.distillation import report
from difformer_plugin.distillation import shards as sharding
from difformer_plugin.distillation.choice import Choice
from difformer_plugin.distillation.journaled_decoding import decode
from difformer_plugin.distillation.own_outputs import OwnOutputs
from difformer_plugin.distillation.plan import Plan, make_plan
from difformer_plugin.distillation.settings import Settings, difference
from difformer_plugin.distillation.tally import Tally
from difformer_plugin.distillation.targets import ABSENT, DROPPED, Targets, draw_pairs
from difformer_plugin.distillation.teacher_outputs import TeacherOutputs
from difformer_plugin.errors import UserError
from difformer_plugin.storage.journal import Journal


class Outputs(Protocol):
    """A kind of distillation: the pairs that it reads, and how it finds new targets for them.

    Attributes:
        pairs: their targets stay where there is no new one.
        numbers: sentence number of each pair in the raw split, ascending.
        parts: the raw split, and those that follow it.
        setting: everything that the journal depends on: options, and hashes of data and models.
        later: options that apply after decoding.
        appended: share of `pairs` to append.
        kept: what a target that stays is called in the reports.
    """

    pairs: DataBinPairs
    numbers: np.ndarray
    parts: list[Part]
    setting: dict[str, Any]
    later: dict[str, Any]
    appended: float
    kept: str

    def source_lengths(self) -> np.ndarray:
        """Number of source tokens of each pair, for batches, (N,)."""

    def causes(self) -> dict[int, str]:
        """Pairs that are not translated -> cause."""

    def choose(self, sentences: list[int]) -> list[Choice]:
        """Translate a batch, given by numbers of pairs, and choose the new targets."""

    def reference(self, sentence: int) -> list[int]:
        """The raw target of a pair, without EOS."""


def distill(settings: Settings) -> tuple[dict[str, Any], bool]:
    """Distil a split, or a shard of one.

    Returns:
        the manifest, and whether an earlier run had finished the work.
    Raises:
        UserError: data and models do not fit each other, or `out` holds something else.
    """
    outputs: Outputs = OwnOutputs(settings) if settings.own else TeacherOutputs(settings)
    manifest: dict[str, Any] = {
        "setting": outputs.setting | outputs.later,
        "teachers": settings.teacher,
        "name": outputs.parts[0].name,
        "lines": len(outputs.pairs),
    }
    if len(outputs.parts) > 1:
        manifest["parts"] = [[part.name, part.lines] for part in outputs.parts]
    if outputs.pairs.left_out:
        manifest["left_out"] = outputs.pairs.left_out
    if found := distilled.finished_work(settings.out, manifest):
        return found, True
    cuts = settings.max_tokens, settings.batch_size
    sizes, causes = outputs.source_lengths(), outputs.causes()
    plan = make_plan(sizes, causes, *cuts, settings.shard, settings.shards)
    work = distilled.work_folder(settings.out)
    work.mkdir(parents=True, exist_ok=True)
    with Journal(work / "journal") as journal:
        # Another process may have finished in the meantime.
        if found := distilled.finished_work(settings.out, manifest):
            return found, True
        begin(journal, outputs.setting)
        if outputs.pairs.left_out:
            tqdm.write(report.left_out(manifest), file=sys.stderr)
        tally = decode_with_progress(plan, journal, outputs)
        targets = Targets(plan, journal, settings.on_failure)
        write(settings, manifest, outputs, targets, tally)
    return manifest, False


def begin(journal: Journal, decoding: dict[str, Any]) -> None:
    """Resume a journal with the same setting, or start one that has no records.

    Raises:
        UserError: the journal has records of another setting.
    """
    if not journal.count:
        journal.begin(decoding)
    elif differs := difference(journal.header, decoding):
        raise UserError(
            f"{Path(journal.path).parent} holds unfinished work with {differs}: give another "
            "--out, or remove it"
        )


def progress_bar(total: int, unit: str, label: str, items: Iterable | None = None) -> tqdm:
    """A progress bar; in a log file it prints a line per minute."""
    interval = 0.1 if sys.stderr.isatty() else 60
    return tqdm(items, label, total, unit=unit, mininterval=interval, smoothing=0.05)


def decode_with_progress(plan: Plan, journal: Journal, outputs: Outputs) -> Tally:
    """Translate the batches that are left; returns the tally of all batches."""
    tally = Tally()
    total = sum(len(batch) for batch in plan.batches.values())

    with progress_bar(total, " lines", "distill") as progress:

        def observe(batch: Tally, is_old: bool) -> None:
            tally.add(vars(batch))
            if is_old:
                progress.initial += batch.sentences
                progress.n += batch.sentences
            else:
                progress.set_postfix_str(f"BLEU {tally.score().score:.1f}", refresh=False)
                progress.update(batch.sentences)

        words = outputs.pairs.target_words
        decode(journal, plan.batches, outputs.choose, outputs.reference, words, observe)
    tally.failures.update(plan.failures.values())
    return tally


def write(
    settings: Settings,
    manifest: dict[str, Any],
    outputs: Outputs,
    targets: Targets,
    tally: Tally,
) -> None:
    """Write the data-bin; the completed tally becomes part of the manifest."""
    present, rows = outputs.pairs, targets.rows()
    drawn = draw_pairs(len(present), outputs.appended, settings.seed)
    added = np.flatnonzero(drawn & (targets.kinds != ABSENT) & (targets.kinds != DROPPED))
    tally.replaced, tally.raw = targets.replaced, len(added)
    tally.dropped = int(np.count_nonzero(targets.kinds == DROPPED))
    tally.pairs = len(rows) + len(added)
    if tally.pairs == 0 and settings.shards == 1:
        raise UserError(
            f"the teacher failed on all of {len(present)} lines: nothing is left to write"
        )
    manifest["tally"] = vars(tally)
    eos = present.dictionaries[1].eos()

    def pairs():
        source, target = present.sides
        for i in rows.tolist():
            output = targets.output(i)
            yield source[i], target[i] if output is None else torch.tensor([*output, eos])
        for i in added.tolist():
            yield source[i], target[i]

    failed = targets.report(present.source_words, present.target_words, outputs.kept)
    numbers = outputs.numbers[np.concatenate([rows, added])]
    with (
        distilled.building(settings.out) as folder,
        progress_bar(len(numbers), " pairs", "write", pairs()) as progress,
    ):
        distilled.copy_rest(settings.data, folder, distilled.split_names(manifest))
        distilled.write(folder, manifest, progress, numbers, failed, present.dictionaries)


def merge(folders: Sequence[str], out: Path) -> tuple[dict[str, Any], bool]:
    """Merge finished shards.

    Args:
        folders: of all shards, in any order.
        out: the data-bin to write.
    Returns:
        the manifest, and whether an earlier run had finished the work.
    Raises:
        UserError: the shards are incomplete or do not belong together.
    """
    shards = sharding.read_shards(folders)
    manifest = sharding.merged_manifest(shards)
    if found := distilled.finished_work(out, manifest):
        return found, True
    sharding.check_complete(shards)
    first = shards[0]["folder"]
    languages = (manifest["setting"]["source"], manifest["setting"]["target"])
    dictionaries = [Dictionary.load(str(first / f"dict.{language}.txt")) for language in languages]

    def progress(pairs: Iterable, total: int) -> Iterable:
        return progress_bar(total, " pairs", "merge", pairs)

    return sharding.merge_shards(shards, out, dictionaries, progress), False
