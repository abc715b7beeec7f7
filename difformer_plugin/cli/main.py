"""The command `difformer`."""

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from typing import Any

from difformer_plugin import __version__
from difformer_plugin.cli import (
    HelpFormatter,
    add_command,
    average,
    bench,
    check_reference,
    completion,
    convert,
    demo,
    distill,
    evaluate,
    export,
    factor,
    options,
    prepare,
    probe,
    translate,
    tune,
    user_dir,
)
from difformer_plugin.cli.stopping import exit_status, terminable
from difformer_plugin.errors import UserError
from difformer_plugin.storage.files import FULL_DISK

# In the order of work: from raw text to scores, then what is needed less often.
SUBCOMMANDS: tuple[Any, ...] = (
    demo,
    prepare,
    distill,
    factor,
    options,
    user_dir,
    average,
    translate,
    evaluate,
    tune,
    export,
    probe,
    bench,
    convert,
    check_reference,
    completion,
)
DESCRIPTION = """Tools for diffusion translation with fairseq. Training and translation of test sets
are done by fairseq's own commands, which are given --user-dir $(difformer user-dir)."""
WORKFLOW = """examples:
  difformer demo                                       # data, training, translations in minutes
  difformer prepare plain --raw raw --out out --source-lang de --target-lang en
  fairseq-train out/data-bin --user-dir $(difformer user-dir) --task diffusion_translation \\
      --arch difformer_paper_iwslt_de_en ...           # the README has the whole command
  difformer average checkpoints --best 5 --out averaged.pt
  fairseq-generate out/data-bin --user-dir $(difformer user-dir) \\
      --task diffusion_translation --path averaged.pt --remove-bpe > test.out
  difformer evaluate test.out --ref out/reference/test.en
  difformer translate checkpoints < new.de > new.en
"""


def build_parser() -> argparse.ArgumentParser:
    """The parser, with a subparser for each subcommand."""
    parser = argparse.ArgumentParser(
        prog="difformer",
        description=DESCRIPTION,
        epilog=WORKFLOW,
        formatter_class=HelpFormatter,
    )
    parser.add_argument("--version", action="version", version=__version__)
    parser.set_defaults(
        run=lambda args: print_help(),
        resumes=False,
        hint=lambda unknown: "",
        build_parser=build_parser,
    )
    subparsers = parser.add_subparsers(metavar="COMMAND", title="commands, in the order of work")
    for module in SUBCOMMANDS:
        module.add_parser(subparsers)
    add_help(subparsers)
    return parser


def add_help(subparsers: Any) -> None:
    """Add the subcommand `help`."""
    parser = add_command(
        subparsers,
        "help",
        "print this overview, or the help of a command",
        "Print the list of commands, or the help of one of them.",
        "",
        "prepare",
        "bench decode",
    )
    parser.add_argument("command", nargs="*", metavar="COMMAND", help="its name")
    parser.set_defaults(run=lambda args: print_help(*args.command))


def print_help(*command: str) -> int:
    """Print the help of a command, or the overview."""
    if command:
        build_parser().parse_args([*command, "--help"])  # it exits
    build_parser().print_help()
    return 0


RESUMES = "the same command goes on from here"


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand.

    Args:
        argv: arguments; those of the process by default.
    Returns:
        the exit status: that of the subcommand, 2 after a UserError or OSError, which is printed as
        one line, 130 after Ctrl-C, 141 if the reader of the output has closed it, and 143 after
        `kill`.
    """
    parser = build_parser()
    args, unknown = parser.parse_known_args(argv)
    if unknown:
        parser.error(f"unrecognized arguments: {shlex.join(unknown)}{args.hint(unknown)}")
    args.command_line = shlex.join(["difformer", *(sys.argv[1:] if argv is None else argv)])
    hint = RESUMES if args.resumes is True else args.resumes
    try:
        with terminable():
            return args.run(args)
    except BrokenPipeError:  # whoever read the output has seen enough, such as `head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141  # as shells report it
    except OSError as error:
        text = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        if error.errno in FULL_DISK:
            text += f": free some space and {'go on: ' + hint if hint else 'run the command again'}"
        print(f"error: {text}", file=sys.stderr)
        return 2
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        print(f"interrupted: {hint}" if hint else "interrupted", file=sys.stderr)
        return exit_status(stop)


if __name__ == "__main__":
    sys.exit(main())
