"""`difformer distill`: replace the targets of a data-bin by a teacher's translations."""

import argparse
import json
import math
import os
import time
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from difformer_plugin import __version__
from difformer_plugin.cli import (
    add_command,
    add_json,
    add_post_process,
    distill_self,
    json_targets,
    print_result,
    register_quietly,
)
from difformer_plugin.distillation.settings import (
    BEST_BLEU,
    LIKELIEST,
    RECEIPT,
    Settings,
    parse_shard,
)
from difformer_plugin.errors import UserError
from difformer_plugin.options import flag
from difformer_plugin.storage import receipts


def add_parser(subparsers: Any) -> None:
    """Add the subcommand."""
    parser = add_command(
        subparsers,
        "distill",
        "replace the targets of a data-bin by a teacher's",
        "Translate the training sources of a data-bin with a teacher, which may be any "
        "translation model of fairseq, and write a data-bin with these targets. The same command "
        "resumes after an interruption.",
        "data-bin --teacher teacher.pt --out distilled",
        "data-bin --teacher teacher.pt --out distilled --choose best-bleu",
    )
    add = parser.add_argument
    add(
        "data",
        nargs="+",
        metavar="DATA-BIN",
        help="made by fairseq-preprocess; with --merge the --out of each shard, in any order",
    )
    add("--teacher", metavar="FILES", help="checkpoint; for an ensemble several joined by ':'")
    add("--out", required=True, type=Path, metavar="DATA-BIN", help="new folder to write to")
    add(
        "--shard",
        default="0/1",
        metavar="I/N",
        help="distil only the I-th of N shares, I from 0, for several machines or GPUs",
    )
    add("--merge", action="store_true", help="merge finished shards")
    add(
        "--split",
        default="train",
        help="split to distil; default: train; other splits are copied",
    )
    add(
        "--all-train-splits",
        action="store_true",
        help="distil train1, train2, ... as well, which fairseq-train adds to train",
    )
    add(
        "--choose",
        choices=(LIKELIEST, BEST_BLEU),
        default=LIKELIEST,
        help="which hypothesis of the beam becomes the target: the likeliest, or the one nearest "
        "to the raw target by sentence BLEU, failures excluded; default: likeliest",
    )
    add("--beam", type=int, default=5, help="beam size; default: 5")
    add("--lenpen", type=float, default=1.0, help="length penalty, as in fairseq; default: 1")
    add(
        "--max-len-a",
        type=float,
        default=1.0,
        metavar="A",
        help="outputs have at most A x (source length) + B tokens; default: 1",
    )
    add("--max-len-b", type=int, default=50, metavar="B", help="default: 50")
    add("--max-tokens", type=int, default=8000, help="source tokens per batch; default: 8000")
    add("--batch-size", type=int, default=256, help="sentences per batch, at most; default: 256")
    add(
        "--on-failure",
        choices=("keep", "drop", "replace"),
        default="keep",
        help="where the teacher failed: keep the raw target, drop the pair, or replace the output "
        "by the next hypothesis that is not a failure, if there is one; default: keep",
    )
    add(
        "--add-raw",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="append this share (0 to 1) of the raw pairs, except dropped ones; default: 0",
    )
    add(
        "--seed",
        type=int,
        default=1,
        help="seed for drawing the pairs to append and, with --self, the noise; default: 1",
    )
    add_post_process(add)
    precision = parser.add_mutually_exclusive_group()
    half: dict[str, Any] = {"dest": "precision", "action": "store_const"}
    precision.add_argument("--fp16", const="fp16", help="decode in float16, on a GPU", **half)
    precision.add_argument("--bf16", const="bf16", help="decode in bfloat16", **half)
    add("--cpu", action="store_true", help="use the CPU even if there is a GPU")
    add_json(add)
    distill_self.add_arguments(parser)
    left_out = ("data", "out", "shards", "own")
    names = [field.name for field in fields(Settings) if field.name not in left_out]
    parser.set_defaults(
        run=run, resumes=True, defaults={name: parser.get_default(name) for name in names}
    )


def run(args: argparse.Namespace) -> int:
    """Distil a data-bin or a shard of it, or merge shards; print a summary."""
    started = time.monotonic()
    # Write to the folder behind a link instead of replacing the link.
    out = args.out.resolve() if args.out.is_symlink() else args.out
    if os.path.ismount(out):
        raise UserError(f"--out {out} is a mount point: give a folder below it")
    json_targets(args)
    if args.merge:
        check_merge(args)
        known = None
    else:
        settings = check_settings(args, out)
        receipt, setting, files = receipt_of(settings)
        known = receipts.read(receipt, setting, files)
        inputs = [file for file in files if file != settings.out]
        before = receipts.stamps(inputs, receipt)
    if known is not None:
        print_result(args, known["figures"], lambda: known["report"], indent=None)
        return 0
    register_quietly()
    from difformer_plugin.distillation.report import render, summary
    from difformer_plugin.distillation.run import distill, merge

    manifest, finished = merge(args.data, out) if args.merge else distill(settings)
    seconds = time.monotonic() - started
    figures = manifest | summary(manifest)
    print_result(args, figures, lambda: render(out, manifest, finished, seconds), indent=None)
    if not args.merge and receipts.stamps(inputs, receipt) == before:
        result = {"figures": figures, "report": render(out, manifest, True, 0.0)}
        receipts.write(receipt, setting, files, result)
    return 0


def receipt_of(settings: Settings) -> tuple[Path, Any, list[Any]]:
    """The file of the receipt of a distillation, its setting, and what it reads and writes."""
    own = settings.own
    files = [settings.data, *settings.teacher, settings.out]
    if own is not None:
        files += [own.model, own.raw, *filter(None, [own.decoding_settings])]
    setting = [__version__, json.loads(json.dumps(asdict(settings), default=str))]
    return settings.out / RECEIPT, setting, files


def check_merge(args: argparse.Namespace) -> None:
    """Refuse options that have no effect on merging."""
    if given := distill_self.given(args):
        raise UserError(f"{given[0]} does not go with --merge: the shards were made with it")
    for name, default in args.defaults.items():
        if vars(args)[name] != default:
            option = "--fp16 or --bf16" if name == "precision" else flag(name)
            raise UserError(f"{option} does not go with --merge: the shards were made with it")


def check_settings(args: argparse.Namespace, out: Path) -> Settings:
    """The settings of a distillation; impossible values are refused."""
    if len(args.data) > 1:
        raise UserError("give one DATA-BIN, or --merge to merge shards")
    if args.teacher is None:
        raise UserError("--teacher is missing: give a checkpoint to translate with")
    for name in ("beam", "max_tokens", "batch_size"):
        if vars(args)[name] < 1:
            raise UserError(f"{flag(name)} must be at least 1, not {vars(args)[name]}")
    if args.choose != LIKELIEST and args.beam == 1:
        raise UserError(f"--choose {args.choose} needs a --beam of at least 2")
    if not 0 <= args.max_len_a < math.inf or args.max_len_b < 1:
        raise UserError("--max-len-a must be at least 0, and --max-len-b at least 1")
    if not math.isfinite(args.lenpen):
        raise UserError(f"--lenpen must be finite, not {args.lenpen}")
    if not 0 <= args.add_raw <= 1:
        raise UserError(f"--add-raw must be between 0 and 1, not {args.add_raw}")
    if not 0 <= args.seed < 2**32:
        raise UserError(f"--seed must be between 0 and 2**32 - 1, not {args.seed}")
    own = distill_self.check(args)
    shard, shards = parse_shard(args.shard)
    values = {name: vars(args)[name] for name in args.defaults}
    given = {"data": Path(args.data[0]), "teacher": args.teacher.split(":"), "out": out}
    return Settings(**values | given | {"shard": shard, "shards": shards, "own": own})
