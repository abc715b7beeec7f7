"""The work of `difformer distill`: decode, choose, write; or merge."""

import sys
from pathlib import Path

import numpy as np
import torch
from fairseq.data import Dictionary
from tqdm import tqdm

from difformer_plugin.cli.distill import parse_shard
from difformer_plugin.data.data_bin_pairs import RawPairs
from difformer_plugin.distillation import corpus as distilled
from difformer_plugin.distillation import journaled as distillation
from difformer_plugin.distillation.teacher import Teacher
from difformer_plugin.errors import UserError
from difformer_plugin.storage.journal import Journal

SEARCH = ("beam", "lenpen", "max_len_a", "max_len_b")
CUTS = ("max_tokens", "batch_size", "post_process")
CHOICES = ("on_failure", "add_raw", "seed")  # made after decoding
PRECISIONS = {"fp16": torch.float16, "bf16": torch.bfloat16}


def distill(args):
    """Distill a split, or a shard of one.

    Returns:
        the manifest of what was done, and whether an earlier run had finished it.
    """
    teacher, raw = load(args)
    decoding = decoding_setting(args, teacher, raw)
    name = raw.stems[0].name.removesuffix(f".{teacher.languages[0]}")
    choices = {option(choice): vars(args)[choice] for choice in CHOICES}
    manifest = {
        "setting": decoding | choices,
        "teachers": args.teacher.split(":"),
        "name": name,
        "lines": len(raw),
    }
    if found := distilled.check_out(args.out, manifest):
        return found, True
    tokens = teacher.source_lengths()
    causes = distillation.unusable(raw.source_lengths(), tokens, teacher.max_source_tokens())
    cuts = args.max_tokens, args.batch_size
    shard, shards = parse_shard(args.shard)
    plan = distillation.plan(tokens, causes, *cuts, shard, shards)
    work = distilled.work_folder(args.out)
    work.mkdir(parents=True, exist_ok=True)
    with Journal(work / "journal") as journal:
        if found := distilled.check_out(args.out, manifest):  # by another process meanwhile
            return found, True
        begin(journal, decoding)
        tally = decode(plan, journal, teacher, raw)
        choice = distilled.Choice(plan, journal, args.on_failure)
        write(args, manifest, raw, choice, tally)
    return manifest, False


def load(args):
    """The teacher, on its device, and the pairs of the split."""
    gpu = torch.cuda.is_available() and not args.cpu
    if args.precision == "fp16" and not gpu:
        raise UserError("--fp16 needs a GPU: use --bf16 on the CPU, or neither")
    data = Path(args.data[0])
    search = {name: vars(args)[name] for name in SEARCH}
    paths, precision = args.teacher.split(":"), PRECISIONS.get(args.precision)
    teacher = Teacher(paths, data, search, precision, "cuda" if gpu else "cpu")
    raw = RawPairs(data, args.split, teacher.languages, teacher.dictionaries, args.post_process)
    teacher.load_split(args.split)
    if len(teacher.source_lengths()) != len(raw):  # a task may repeat or leave out sentences
        raise UserError(
            f"the teacher's task reads {len(teacher.source_lengths())} of {len(raw)} lines: use a "
            "teacher of fairseq's task translation"
        )
    return teacher, raw


def decoding_setting(args, teacher, raw):
    """All that decides on the journal's contents: options, and hashes of data and teacher."""
    files = [f"{stem}.{end}" for stem in raw.stems for end in ("idx", "bin")]
    files += [Path(args.data[0]) / f"dict.{language}.txt" for language in teacher.languages]
    return {
        "format": distillation.FORMAT,
        "data": distillation.digest(files),
        "teacher": distillation.digest(args.teacher.split(":")),
        "split": args.split,
        **dict(zip(("source", "target"), teacher.languages)),
        **{option(name): vars(args)[name] for name in (*SEARCH, *CUTS)},
        "precision": args.precision or "float32",
        "--shard": "{}/{}".format(*parse_shard(args.shard)),  # 00/01 is 0/1
    }


def option(name):
    """How an argument is written."""
    return f"--{name.replace('_', '-')}"


def begin(journal, decoding):
    """Go on with a journal of the same work; one without records may be begun anew."""
    if not journal.count:
        journal.begin(decoding)
    elif differs := distillation.difference(journal.header, decoding):
        raise UserError(
            f"{Path(journal.path).parent} holds unfinished work with {differs}: give another "
            "--out, or remove it"
        )


def bar(total, unit, label, items=None):
    """A progress bar on a terminal, a line a minute in a log."""
    interval = 0.1 if sys.stderr.isatty() else 60
    return tqdm(items, label, total, unit=unit, mininterval=interval, smoothing=0.05)


def decode(plan, journal, teacher, raw):
    """Translate what is left; returns the Tally of all of it."""
    tally = distillation.Tally()
    total = sum(len(batch) for batch in plan.batches.values())

    with bar(total, " lines", "distill") as progress:

        def observe(batch, is_old):
            tally.add(batch)
            if is_old:
                progress.initial += batch.sentences
                progress.n += batch.sentences
            else:
                progress.set_postfix_str(f"BLEU {tally.score().score:.1f}", refresh=False)
                progress.update(batch.sentences)

        sides = raw.tokens, raw.target_words
        distillation.decode(journal, plan.batches, teacher.translate, *sides, observe)
    tally.failures.update(plan.failures.values())
    return tally


def write(args, manifest, raw, choice, tally):
    """Write the data-bin of a Choice; the tally goes into the manifest."""
    own = choice.kinds != distilled.ABSENT
    rows = choice.rows()
    drawn = distilled.drawn(len(raw), args.add_raw, args.seed)
    added = np.flatnonzero(own & drawn & (choice.kinds != distilled.DROPPED))
    tally.replaced, tally.raw = choice.replaced, len(added)
    tally.dropped = int(np.count_nonzero(choice.kinds == distilled.DROPPED))
    tally.pairs = len(rows) + len(added)
    if tally.pairs == 0 and parse_shard(args.shard) == (0, 1):
        raise UserError(f"the teacher failed on all of {len(raw)} lines: nothing is left to write")
    manifest["tally"] = vars(tally)
    eos = raw.dictionaries[1].eos()

    def pairs():
        source, target = raw.sides
        for i in rows.tolist():
            output = choice.output(i)
            yield source[i], target[i] if output is None else torch.tensor([*output, eos])
        for i in added.tolist():
            yield source[i], target[i]

    report = distilled.report_lines(choice, raw.source_words, raw.target_words)
    numbers = np.concatenate([rows, added])
    with (
        distilled.building(args.out) as folder,
        bar(len(numbers), " pairs", "write", pairs()) as progress,
    ):
        distilled.copy_rest(args.data[0], folder, manifest["name"], args.split)
        distilled.write(folder, manifest, progress, numbers, report, raw.dictionaries)


def merge(args):
    """Put shards together.

    Returns:
        the manifest, and whether an earlier run had done so.
    """
    shards = distilled.read_shards(args.data)
    manifest = distilled.merged(shards)
    if found := distilled.check_out(args.out, manifest):
        return found, True
    distilled.check_whole(shards)
    first = shards[0]["folder"]
    languages = (manifest["setting"]["source"], manifest["setting"]["target"])
    dictionaries = [Dictionary.load(str(first / f"dict.{language}.txt")) for language in languages]

    def progress(pairs, total):
        return bar(total, " pairs", "merge", pairs)

    return distilled.merge(shards, args.out, dictionaries, progress), False
