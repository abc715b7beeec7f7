"""`difformer demo`: train a small model and translate with it, from raw text to BLEU."""

import argparse
from pathlib import Path
from typing import Any

from difformer_plugin.cli import add_command
from difformer_plugin.demo.settings import MAX_UPDATE, TEST_SIZE, TRAIN_SIZE, Settings
from difformer_plugin.errors import UserError

RESUMES = "the same command goes on from here, a training from the end of its last epoch"


def add_parser(subparsers: Any) -> None:
    """Add the subcommand."""
    parser = add_command(
        subparsers,
        "demo",
        "train a small model and translate, from raw text to BLEU",
        "Prepare a corpus, train a small Difformer, translate the test set, and print "
        "a report with BLEU and examples. Every fairseq command is shown. An interrupted run "
        "resumes.",
        "",
        "--data my-text --source-lang de --target-lang en --out my-run",
    )
    add = parser.add_argument
    add(
        "--data",
        type=Path,
        metavar="FOLDER",
        help="raw text: train.de, train.en, valid.*, test.*, plain or .gz "
        "(default: a synthetic German-English corpus)",
    )
    add(
        "--out",
        type=Path,
        default=Path("demo-run"),
        metavar="FOLDER",
        help="folder for all files, from which an interrupted run resumes (default: demo-run)",
    )
    add("--source-lang", default="de", help="default: de")
    add("--target-lang", default="en", help="default: en")
    add(
        "--max-update",
        type=int,
        default=MAX_UPDATE,
        metavar="N",
        help=f"updates of training (default: {MAX_UPDATE})",
    )
    add("--seed", type=int, default=1, help="of training and decoding; default: 1")
    add("--corpus-seed", type=int, default=1, help="of the synthetic corpus; default: 1")
    add(
        "--train-size",
        type=int,
        default=TRAIN_SIZE,
        help=f"training sentences of the synthetic corpus (default: {TRAIN_SIZE})",
    )
    add(
        "--test-size",
        type=int,
        default=TEST_SIZE,
        help=f"sentences in each of its valid and test sets (default: {TEST_SIZE})",
    )
    parser.set_defaults(run=run, resumes=RESUMES)


def run(args: argparse.Namespace) -> int:
    """Run the demonstration and print its report."""
    check(args)
    from difformer_plugin.demo.run import run_demo

    settings = Settings(
        args.out,
        args.data,
        args.source_lang,
        args.target_lang,
        args.max_update,
        args.seed,
        args.corpus_seed,
        args.train_size,
        args.test_size,
    )
    print(f"\n{run_demo(settings)}\nThis report is in {args.out / 'report.txt'}")
    return 0


def check(args: argparse.Namespace) -> None:
    """Raise a UserError for impossible values, and for options that do not go together."""
    if args.max_update < 1:
        raise UserError(f"--max-update must be at least 1, not {args.max_update}")
    if args.data is None and (args.source_lang, args.target_lang) != ("de", "en"):
        raise UserError(
            "the synthetic corpus is German to English: give --data for other languages"
        )
    if min(args.train_size, args.test_size) < 1:
        raise UserError("--train-size and --test-size must be at least 1")
    if args.source_lang == args.target_lang:
        raise UserError(f"--source-lang and --target-lang are both {args.source_lang}")
    if args.out.is_file():
        raise UserError(f"--out {args.out} is a file: give a folder")
    not_empty = args.out.is_dir() and any(args.out.iterdir())
    if not_empty and not (args.out / "stages.json").exists():
        raise UserError(f"--out {args.out} holds other files: give a folder that is new or empty")
