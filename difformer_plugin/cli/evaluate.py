"""`difformer evaluate`: score the translations of one system, or compare two."""

import argparse
import logging
from pathlib import Path
from typing import Any

from difformer_plugin.cli import add_command, add_json, json_targets, print_result
from difformer_plugin.errors import UserError

OPTIONAL_METRICS = ("ter", "chrf", "rouge", "bertscore", "comet")
FILES = (  # option, help
    ("--hyp", "a plain file of translations, instead of GEN.out"),
    ("--ref", "raw references; default: the T-lines of GEN.out, which lack unknown words"),
    ("--src", "raw sources; default: the S-lines of GEN.out"),
    (
        "--baseline",
        "a second system to compare with: an output of fairseq-generate or a plain file, detected "
        "from its content",
    ),
    (
        "--history",
        "what fairseq-generate wrote with --history-file: colours the tokens of the report",
    ),
    ("--html", "also write a report with plots, as one HTML file"),
)


def add_parser(subparsers: Any) -> None:
    """Add the subcommand."""
    parser = add_command(
        subparsers,
        "evaluate",
        "score translations, and compare two systems",
        "Score the output of fairseq-generate, or plain files with one sentence a "
        "line. Subwords (@@ or SentencePiece) are joined.",
        "test.out --ref out/reference/test.en --src out/reference/test.de",
        "ten.out --baseline one.out --ref out/reference/test.en --html report.html",
        "--hyp translations.en --ref test.en",
    )
    add = parser.add_argument
    add(
        "log",
        nargs="?",
        type=Path,
        metavar="GEN.out",
        help="the output of fairseq-generate, or generate-test.txt of its --results-path",
    )
    for option, text in FILES:
        add(option, type=Path, metavar="FILE", help=text)
    add(
        "--target-lang",
        metavar="LANG",
        help="language for tokenisation; default: that of GEN.out, or the suffix of --ref; de adds "
        "BLEU with compounds split at hyphens",
    )
    add("--lowercase", action="store_true", help="lower-case translations and references")
    add(
        "--tokenized",
        action="store_true",
        help="all files hold Moses tokens; by default, outputs of fairseq-generate do unless their "
        "content tells otherwise, and plain files do not",
    )
    add("--raw", action="store_true", help="no file holds Moses tokens")
    add(
        "--buckets",
        default="5",
        metavar="N",
        help="source lengths for BLEU by length: a number of buckets of about equal population, or "
        "the longest length of each in words, as in 10,20,30; default: 5",
    )
    add(
        "--bootstrap-samples",
        type=int,
        default=1000,
        metavar="N",
        help="resampled test sets for p-values and 95 %% intervals; 0 for none; default: 1000, "
        "seeded by SACREBLEU_SEED",
    )
    add(
        "--skip",
        nargs="+",
        default=[],
        choices=OPTIONAL_METRICS,
        metavar="METRIC",
        help=f"leave out some of {', '.join(OPTIONAL_METRICS)}",
    )
    add("--bertscore-model", metavar="MODEL", help="a folder, or a name in the local cache")
    add("--comet-model", metavar="MODEL", help="a checkpoint, or a name in the local cache")
    add(
        "--no-sentences",
        action="store_true",
        help="leave corpus text out of the report, for corpora that must not be passed on",
    )
    add_json(add)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the scores as a table or as JSON."""
    check(args)
    from tqdm import tqdm

    from difformer_plugin.evaluation.comparison import parse_buckets
    from difformer_plugin.evaluation.results import Settings
    from difformer_plugin.evaluation.run import Files, evaluate_files
    from difformer_plugin.evaluation.table import render

    logging.getLogger().setLevel(logging.WARNING)  # the metrics' packages log a lot

    def progress(tasks):
        with tqdm(tasks, "score", leave=False, disable=None) as bar:
            for label, task in bar:
                bar.set_postfix_str(label)
                yield label, task

    result = evaluate_files(
        Files(args.log or args.hyp, args.baseline, args.ref, args.src, args.history, args.html),
        Settings(
            parse_buckets(args.buckets),
            args.bootstrap_samples,
            args.skip,
            args.lowercase,
            args.bertscore_model,
            args.comet_model,
        ),
        args.target_lang,
        True if args.tokenized else False if args.raw else None,
        not args.no_sentences,
        progress,
        args.command_line,
    )
    html = f"\n\nreport      {args.html}" if args.html else ""
    print_result(args, result, lambda: render(result) + html)
    return 0


def check(args: argparse.Namespace) -> None:
    """Raise a UserError for options that do not make sense together."""
    if (args.log is None) == (args.hyp is None):
        raise UserError("give the output of fairseq-generate, or a plain file with --hyp and --ref")
    if args.tokenized and args.raw:
        raise UserError("--tokenized and --raw exclude each other: choose one")
    if args.bootstrap_samples < 0:
        raise UserError(f"--bootstrap-samples must be at least 0, not {args.bootstrap_samples}")
    if args.history and not args.html:
        raise UserError("--history colours the report: give --html as well")
    if args.no_sentences and not args.html:
        raise UserError("--no-sentences concerns the report: give --html as well")
    json_targets(args)
    if args.html and args.html.is_dir():
        raise UserError(f"--html {args.html} is a folder: name a file")
