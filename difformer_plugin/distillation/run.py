"""The work of `difformer distill`: decode, choose targets, write; or merge shards."""

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fairseq.data import Dictionary
from tqdm import tqdm

from difformer_plugin.data.data_bin_pairs import DataBinPairs
from difformer_plugin.distillation import distilled_data_bin as distilled
from difformer_plugin.distillation import shards as sharding
from difformer_plugin.distillation.choice import CHOOSERS, Choose
from difformer_plugin.distillation.journaled_decoding import decode
from difformer_plugin.distillation.plan import Plan, make_plan, unusable
from difformer_plugin.distillation.settings import (
    CHOICES,
    CUTS,
    FORMAT,
    PICK,
    SEARCH,
    Settings,
    difference,
)
from difformer_plugin.distillation.tally import Tally
from difformer_plugin.distillation.targets import ABSENT, DROPPED, Targets, draw_raw_pairs
from difformer_plugin.distillation.teacher import Teacher
from difformer_plugin.errors import UserError
from difformer_plugin.storage.files import digest_files
from difformer_plugin.storage.journal import Journal

PRECISIONS = {"fp16": torch.float16, "bf16": torch.bfloat16}


def distill(settings: Settings) -> tuple[dict[str, Any], bool]:
    """Distil a split, or a shard of one.

    Returns:
        the manifest, and whether an earlier run had finished the work.
    Raises:
        UserError: data and teacher do not fit each other, or `out` holds something else.
    """
    teacher, raw = load(settings)
    decoding = decoding_setting(settings, teacher, raw)
    manifest = {
        "setting": decoding | settings.named(*CHOICES),
        "teachers": settings.teacher,
        "name": raw.stems[0].name.removesuffix(f".{teacher.languages[0]}"),
        "lines": len(raw),
    }
    if found := distilled.finished_manifest(settings.out, manifest):
        return found, True
    tokens = teacher.source_lengths()
    causes = unusable(raw.source_lengths(), tokens, teacher.max_source_tokens())
    cuts = settings.max_tokens, settings.batch_size
    plan = make_plan(tokens, causes, *cuts, settings.shard, settings.shards)
    work = distilled.work_folder(settings.out)
    work.mkdir(parents=True, exist_ok=True)
    with Journal(work / "journal") as journal:
        # Another process may have finished in the meantime.
        if found := distilled.finished_manifest(settings.out, manifest):
            return found, True
        begin(journal, decoding)
        tally = decode_with_progress(plan, journal, teacher, raw, CHOOSERS[settings.choose])
        targets = Targets(plan, journal, settings.on_failure)
        write(settings, manifest, raw, targets, tally)
    return manifest, False


def load(settings: Settings) -> tuple[Teacher, DataBinPairs]:
    """The teacher on its device, and the raw pairs of the split."""
    gpu = torch.cuda.is_available() and not settings.cpu
    if settings.precision == "fp16" and not gpu:
        raise UserError("--fp16 needs a GPU: use --bf16 on the CPU, or neither")
    precision = PRECISIONS.get(settings.precision) if settings.precision else None
    data, device = settings.data, "cuda" if gpu else "cpu"
    teacher = Teacher(settings.teacher, data, settings.search(), precision, device)
    raw = DataBinPairs(
        data, settings.split, teacher.languages, teacher.dictionaries, settings.post_process
    )
    teacher.load_split(settings.split)
    # Some tasks of fairseq repeat or skip sentences.
    if len(teacher.source_lengths()) != len(raw):
        raise UserError(
            f"the teacher's task reads {len(teacher.source_lengths())} of {len(raw)} lines: use a "
            "teacher of fairseq's task translation"
        )
    return teacher, raw


def decoding_setting(settings: Settings, teacher: Teacher, raw: DataBinPairs) -> dict[str, Any]:
    """Everything that the journal depends on: options, and hashes of data and teacher."""
    files = [Path(f"{stem}.{end}") for stem in raw.stems for end in ("idx", "bin")]
    files += [settings.data / f"dict.{language}.txt" for language in teacher.languages]
    return {
        "format": FORMAT,
        "data": digest_files(files),
        "teacher": digest_files(settings.teacher),
        "split": settings.split,
        **dict(zip(("source", "target"), teacher.languages)),
        **settings.named(*PICK, *SEARCH, *CUTS),
        "precision": settings.precision or "float32",
        "--shard": f"{settings.shard}/{settings.shards}",
    }


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


def decode_with_progress(
    plan: Plan, journal: Journal, teacher: Teacher, raw: DataBinPairs, choose: Choose
) -> Tally:
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

        translate, words = teacher.translate, raw.target_words
        decode(journal, plan.batches, translate, raw.tokens, words, choose, observe)
    tally.failures.update(plan.failures.values())
    return tally


def write(
    settings: Settings,
    manifest: dict[str, Any],
    raw: DataBinPairs,
    targets: Targets,
    tally: Tally,
) -> None:
    """Write the data-bin; the completed tally becomes part of the manifest."""
    rows = targets.rows()
    drawn = draw_raw_pairs(len(raw), settings.add_raw, settings.seed)
    added = np.flatnonzero(drawn & (targets.kinds != ABSENT) & (targets.kinds != DROPPED))
    tally.replaced, tally.raw = targets.replaced, len(added)
    tally.dropped = int(np.count_nonzero(targets.kinds == DROPPED))
    tally.pairs = len(rows) + len(added)
    if tally.pairs == 0 and settings.shards == 1:
        raise UserError(f"the teacher failed on all of {len(raw)} lines: nothing is left to write")
    manifest["tally"] = vars(tally)
    eos = raw.dictionaries[1].eos()

    def pairs():
        source, target = raw.sides
        for i in rows.tolist():
            output = targets.output(i)
            yield source[i], target[i] if output is None else torch.tensor([*output, eos])
        for i in added.tolist():
            yield source[i], target[i]

    report = targets.report(raw.source_words, raw.target_words)
    numbers = np.concatenate([rows, added])
    with (
        distilled.building(settings.out) as folder,
        progress_bar(len(numbers), " pairs", "write", pairs()) as progress,
    ):
        distilled.copy_rest(settings.data, folder, manifest["name"], settings.split)
        distilled.write(folder, manifest, progress, numbers, report, raw.dictionaries)


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
    if found := distilled.finished_manifest(out, manifest):
        return found, True
    sharding.check_complete(shards)
    first = shards[0]["folder"]
    languages = (manifest["setting"]["source"], manifest["setting"]["target"])
    dictionaries = [Dictionary.load(str(first / f"dict.{language}.txt")) for language in languages]

    def progress(pairs: Iterable, total: int) -> Iterable:
        return progress_bar(total, " pairs", "merge", pairs)

    return sharding.merge_shards(shards, out, dictionaries, progress), False
