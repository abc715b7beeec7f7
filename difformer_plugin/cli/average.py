"""`difformer average`: average the best or the last checkpoints of a training run."""

import argparse
from pathlib import Path
from typing import Any

from difformer_plugin.cli import add_command, register_quietly
from difformer_plugin.errors import UserError


def add_parser(subparsers: Any) -> None:
    """Add the subcommand."""
    parser = add_command(
        subparsers,
        "average",
        "average the best or the last checkpoints",
        "Average the weights of several checkpoints of one training run, and write the "
        "mean as a checkpoint for fairseq-generate. Files with the same number of updates count as "
        "one checkpoint.",
        "checkpoints --best 5 --out averaged.pt",
        "checkpoints --last 1 --use-ema --out ema.pt",
    )
    add = parser.add_argument
    add("folder", metavar="FOLDER", help="the --save-dir of fairseq-train")
    add("--out", required=True, type=Path, metavar="FILE", help="checkpoint to write")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument(
        "--best",
        type=int,
        metavar="N",
        help="average the N best by the --best-checkpoint-metric of the training run",
    )
    which.add_argument("--last", type=int, metavar="N", help="average the N with the most updates")
    add(
        "--use-ema",
        action="store_true",
        help="take the exponential moving average of --store-ema from each checkpoint in place of "
        "the weights; with --last 1 it becomes a checkpoint of its own",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Average the checkpoints, and print a line for each."""
    option, number = ("--last", args.last) if args.best is None else ("--best", args.best)
    if number < 1:
        raise UserError(f"{option} must be at least 1, not {number}")
    if args.out.is_dir():
        raise UserError(f"--out {args.out} is a folder: give a file")
    register_quietly()
    from tqdm import tqdm

    from difformer_plugin.checkpoints import averaging
    from difformer_plugin.checkpoints.saving import save_atomically

    if args.out.resolve() in [path.resolve() for path in averaging.checkpoint_files(args.folder)]:
        raise UserError(f"--out {args.out} is a checkpoint of the training run: give another name")
    found = averaging.list_checkpoints(args.folder)
    choose, usable, kept = averaging.choose_newest, found, "--keep-last-epochs"
    if args.best is not None:
        choose, kept = averaging.choose_best, "--keep-best-checkpoints"
        usable = [checkpoint for checkpoint in found if checkpoint.metric is not None]
    wanted, number = number, min(number, len(usable))
    chosen = choose(found, number or wanted, args.folder)  # none at all is an error
    mean = averaging.average(
        chosen, lambda each: tqdm(each, "average", leave=False, disable=None), args.use_ema
    )
    save_atomically(mean, args.out)
    for checkpoint in chosen:
        print(checkpoint)
    print(f"{args.out}: the mean of these {number}" if number > 1 else f"{args.out}: a copy of it")
    if number < wanted:
        print(
            f"note: {args.folder} has only {number} of the {wanted} checkpoints, as after a short "
            f"training; for more, train with {kept} {wanted} or more"
        )
    return 0
