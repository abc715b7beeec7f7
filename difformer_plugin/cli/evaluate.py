"""`difformer evaluate`: scores of translations, of one system or of two, as table, JSON or page."""

import json
import logging
from pathlib import Path

from difformer_plugin.errors import UserError

METRICS = ("ter", "chrf", "rouge", "bertscore", "comet")


def add_parser(subparsers):
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "evaluate",
        help="score translations, and compare two systems",
        description="Score what fairseq-generate printed, or plain files with one sentence a line. "
        "Subwords (@@ or sentencepiece) are joined.",
    )
    add = parser.add_argument
    add(
        "log",
        nargs="?",
        type=Path,
        metavar="GEN.out",
        help="the output of fairseq-generate, or generate-test.txt of its --results-path",
    )
    add("--hyp", type=Path, metavar="FILE", help="translations in a plain file, instead")
    add(
        "--ref",
        type=Path,
        metavar="FILE",
        help="raw references; default: the T-lines of GEN.out, in which unknown words are lost",
    )
    add("--src", type=Path, metavar="FILE", help="raw sources; default: the S-lines of GEN.out")
    add(
        "--baseline",
        type=Path,
        metavar="FILE",
        help="a second system to compare with: an output of fairseq-generate, or a plain file; "
        "which of both, its content tells",
    )
    add(
        "--target-lang",
        metavar="LANG",
        help="for tokens and back; default: what GEN.out says, or the ending of --ref; for de, "
        "BLEU with compounds split at hyphens is there as well",
    )
    add("--lowercase", action="store_true", help="lower-case translations and references")
    add(
        "--tokenized",
        action="store_true",
        help="plain files hold Moses tokens, as outputs of fairseq-generate do unless their "
        "content tells otherwise",
    )
    add(
        "--raw",
        action="store_true",
        help="outputs of fairseq-generate hold no Moses tokens, as plain files do not",
    )
    add(
        "--buckets",
        default="5",
        metavar="N",
        help="BLEU by source length: in so many buckets of about equal population, or up to these "
        "lengths in words, as 10,20,30; default: 5",
    )
    add(
        "--bootstrap-samples",
        type=int,
        default=1000,
        metavar="N",
        help="resampled test sets for p-values and 95 %% intervals; 0: none; default: 1000, seeded "
        "by SACREBLEU_SEED",
    )
    add(
        "--skip",
        nargs="+",
        default=[],
        choices=METRICS,
        metavar="METRIC",
        help=f"leave out some of {', '.join(METRICS)}",
    )
    add("--bertscore-model", metavar="MODEL", help="folder, or name of one in the local cache")
    add("--comet-model", metavar="MODEL", help="checkpoint, or name of one in the local cache")
    add(
        "--history",
        type=Path,
        metavar="FILE",
        help="what fairseq-generate wrote with --history-file: the page colours tokens by it",
    )
    add("--html", type=Path, metavar="FILE", help="also write a page with plots, all in one file")
    add(
        "--no-sentences",
        action="store_true",
        help="leave the corpus's text out of the page, which can then be passed on where that may "
        "not",
    )
    add("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(args):
    """Print the scores, and write the page."""
    check(args)
    from tqdm import tqdm

    from difformer_plugin.evaluation import inputs
    from difformer_plugin.evaluation.comparison import parse_buckets
    from difformer_plugin.evaluation.results import evaluate

    logging.getLogger().setLevel(logging.WARNING)  # libraries tell of each of their stages
    args.buckets = parse_buckets(args.buckets)
    tokenised = True if args.tokenized else False if args.raw else None
    test_set, systems = inputs.load(
        args.log or args.hyp,
        args.ref,
        args.src,
        args.baseline,
        args.target_lang,
        args.lowercase,
        tokenised,
    )
    history = None
    if args.history:
        from difformer_plugin.evaluation.history import read_history

        history = read_history(args.history, systems[0])

    def progress(tasks):
        with tqdm(tasks, "score", leave=False, disable=None) as bar:
            for label, task in bar:
                bar.set_postfix_str(label)
                yield label, task

    result = evaluate(test_set, systems, args, progress)
    if args.html:
        from difformer_plugin.evaluation.report import write_report

        write_report(args.html, result, test_set, systems, history, not args.no_sentences)
    if args.json:
        print(json.dumps(result, indent=1))
    else:
        from difformer_plugin.evaluation.table import render

        print(render(result) + (f"\n\npage        {args.html}" if args.html else ""))
    return 0


def check(args):
    """Raise a UserError for options that say nothing together."""
    if (args.log is None) == (args.hyp is None):
        raise UserError("give the output of fairseq-generate, or a plain file with --hyp and --ref")
    if args.tokenized and args.raw:
        raise UserError("--tokenized and --raw exclude each other: choose one")
    if args.bootstrap_samples < 0:
        raise UserError(f"--bootstrap-samples must be at least 0, not {args.bootstrap_samples}")
    if args.history and not args.html:
        raise UserError("--history colours the page: give --html as well")
    if args.no_sentences and not args.html:
        raise UserError("--no-sentences is about the page: give --html as well")
    if args.html and args.html.is_dir():
        raise UserError(f"--html {args.html} is a folder: name a file")
