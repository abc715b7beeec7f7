"""`difformer translate`: translate a file of raw text."""

import argparse
import contextlib
import sys
from pathlib import Path
from typing import Any

from difformer_plugin.cli import add_command, model_arguments, register_quietly
from difformer_plugin.cli.stopping import exit_status
from difformer_plugin.errors import UserError
from difformer_plugin.options import flag
from difformer_plugin.storage.files import FULL_DISK

SHOWN_WARNINGS = 10
STANDARD_INPUT = "standard input"


def add_parser(subparsers: Any) -> None:
    """Add the subcommand."""
    parser = add_command(
        subparsers,
        "translate",
        "translate a file of raw text",
        "Translate raw text, a sentence a line. There is one line of output for each line of "
        "input, in the same order; empty lines stay empty. A line that is too long for the model "
        "is split at sentence ends, with a warning. With --input and --output an interrupted run "
        "goes on where it stopped.",
        "checkpoints < new.de > new.en",
        "checkpoints --input new.de.gz --output new.en --length-beam-size 3 --bleu-mbr",
    )
    model_arguments.add_model(parser)
    add = parser.add_argument
    add("--input", type=Path, metavar="FILE", help="plain or .gz; default: standard input")
    add(
        "--output",
        type=Path,
        metavar="FILE",
        help="appears when it is complete; default: standard output",
    )
    add(
        "--nbest",
        type=int,
        default=1,
        metavar="N",
        help="write the N best candidates of each line, as number of the line, score and text",
    )
    add(
        "--batch-size",
        type=int,
        default=50,
        metavar="N",
        help="lines translated together; has no effect on the result; default: 50",
    )
    add(
        "--split-above",
        type=int,
        metavar="N",
        help="split lines of more than N subwords; default: the longest that the model can read",
    )
    add("--cpu", action="store_true", help="use the CPU even if there is a GPU")
    model_arguments.add_text(parser)
    model_arguments.add_decoding(parser)
    add(
        "--constraints-file",
        metavar="FILE",
        help="raw words that translations have to contain: a line for each of the input, empty "
        'or as {"prefix": "The house", "anywhere": ["big"], "suffix": "."}',
    )
    parser.set_defaults(run=run, hint=model_arguments.hint)


def run(args: argparse.Namespace) -> int:
    """Translate; nothing but translations is printed to the standard output."""
    check(args)
    register_quietly()
    from difformer_plugin.translation import files, lines
    from difformer_plugin.translation.translator import Translator

    warn = Warnings()
    translator = Translator(settings_of(args), args.batch_size, args.nbest, args.split_above, warn)
    try:
        if args.input and args.output:
            total, digest = lines.count_lines(args.input)
            check_constraints(args, translator, total)
            key = key_of(args, translator, digest)
            if done := files.lines_done(args.output):
                print(f"{done:,} lines are done already", file=sys.stderr)
            note_replacement(args.output)
            files.translate_file(
                translator, args.input, args.output, key, args.batch_size, args.nbest, total, warn
            )
        else:
            translate_stream(args, translator, warn)
    except OSError as error:
        if error.errno not in FULL_DISK or not args.output:
            raise
        raise UserError(
            f"--output {args.output} could not be written ({error.strerror}): free some space and "
            "run the same command again; with --input it goes on from here"
        ) from error
    except KeyboardInterrupt as stop:
        print(interruption(args), file=sys.stderr)
        return exit_status(stop)
    warn.summarise()
    return 0


def translate_stream(args: argparse.Namespace, translator: Any, warn: "Warnings") -> None:
    """Translate from or to a stream, which cannot be resumed."""
    from difformer_plugin.storage.files import atomic_path
    from difformer_plugin.translation import files, lines

    with contextlib.ExitStack() as stack:
        source = sys.stdin.buffer
        if args.input:
            total = lines.count_lines(args.input)[0]
            check_constraints(args, translator, total)
            source = stack.enter_context(lines.open_lines(args.input))
        else:
            total = lines.count_rest(source)
            if total is not None:
                translator.check_constraints(total)
        chunk = 1 if source.isatty() else args.batch_size
        output: Any = sys.stdout.buffer
        if args.output:
            note_replacement(args.output)
            output = stack.enter_context(open(stack.enter_context(atomic_path(args.output)), "wb"))
        read = lines.read_lines(source, args.input or STANDARD_INPUT, warn)
        files.translate_stream(translator, read, output, chunk, args.nbest, total)


def check_constraints(args: argparse.Namespace, translator: Any, total: int) -> None:
    """Check the words that are given for the lines of --input, before work begins."""
    from difformer_plugin.translation import lines

    translator.check_constraints(total)
    with lines.open_lines(args.input) as source:
        # what there is to warn of is said when lines are translated
        translator.check_lines(lines.read_lines(source, args.input, lambda text: None))


def note_replacement(output: Path) -> None:
    """Say that an earlier translation is going to be replaced."""
    if output.exists():
        print(f"note: {output} exists, and is replaced when this is complete", file=sys.stderr)


def interruption(args: argparse.Namespace) -> str:
    """What is said after Ctrl-C."""
    if args.input and args.output:
        from difformer_plugin.translation.files import lines_done

        return (
            f"interrupted; {lines_done(args.output):,} lines are done, and the same command goes "
            "on from there"
        )
    return "interrupted; with --input and --output such a run goes on where it stopped"


def check(args: argparse.Namespace) -> None:
    """Raise a UserError for impossible values, and for files that cannot be read or written."""
    for name in ("nbest", "batch_size", "split_above"):
        value = vars(args)[name]
        if value is not None and value < 1:
            raise UserError(f"{flag(name)} must be at least 1, not {value}")
    model_arguments.check_seed(args)
    if args.input and not args.input.is_file():
        what = "not a file: use the standard input" if args.input.exists() else "no such file"
        raise UserError(f"--input {args.input}: {what}")
    if not args.input and sys.stdin is None:
        raise UserError("the standard input is closed: give --input FILE")
    if not args.output and sys.stdout is None:
        raise UserError("the standard output is closed: give --output FILE")
    if args.output:
        if args.output.is_dir() or not args.output.absolute().parent.is_dir():
            raise UserError(f"--output {args.output}: give a file in a folder that exists")
        if args.output.exists() and not args.output.is_file():
            raise UserError(f"--output {args.output} is not a file: write to the standard output")
        if args.input and args.output.exists() and args.output.samefile(args.input):
            raise UserError(f"--output {args.output} is --input: give another file")


def settings_of(args: argparse.Namespace) -> Any:
    """The settings of the model and of decoding."""
    from difformer_plugin.translation.settings import Settings, TextOptions

    return Settings(
        args.model,
        args.data,
        TextOptions(**model_arguments.text_options(args)),
        args.teacher,
        model_arguments.decoding_options(args),
        args.decoding_settings,
        args.seed,
        args.use_ema,
        args.cpu,
    )


def key_of(args: argparse.Namespace, translator: Any, digest: str) -> dict[str, Any]:
    """What the translation of a file depends on, by the name of the option."""
    from dataclasses import asdict

    from difformer_plugin.storage.files import digest_files

    loaded, constraints = translator.loaded, translator.options["constraints_file"]
    return {
        "--input": digest,
        "MODEL": digest_files([loaded.weights]),
        "pipeline": asdict(loaded.codec.pipeline),
        "device": translator.device.type,
        "--teacher": args.teacher and digest_files([args.teacher]),
        "--use-ema": args.use_ema,
        "--seed": args.seed,
        "--nbest": args.nbest,
        "--split-above": translator.limit,
        **{flag(name): value for name, value in translator.options.items()},
        "--constraints-file": constraints and digest_files([constraints]),
    }


class Warnings:
    """Prints the first warnings above the progress bar, and counts the others."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, text: str) -> None:
        from tqdm import tqdm

        self.count += 1
        if self.count <= SHOWN_WARNINGS:
            tqdm.write(f"warning: {text}", file=sys.stderr)

    def summarise(self) -> None:
        """Say how many warnings were left out."""
        if self.count > SHOWN_WARNINGS:
            print(f"warning: {self.count - SHOWN_WARNINGS:,} more of these", file=sys.stderr)
