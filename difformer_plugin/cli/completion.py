"""`difformer completion`: a script that completes the command in a shell."""

import argparse
from typing import Any

from difformer_plugin.cli import add_command

SHELLS = ("bash", "zsh", "tcsh")
KINDS = {  # metavar -> what shtab calls it
    **dict.fromkeys(("FILE", "FILES", "GEN.out", "IN", "OUT", "MODEL", "CHECKPOINT"), "FILE"),
    **dict.fromkeys(("FOLDER", "DATA-BIN"), "DIRECTORY"),
}


def add_parser(subparsers: Any) -> None:
    """Add the subcommand."""
    parser = add_command(
        subparsers,
        "completion",
        "print a script that completes commands in the shell",
        "Print a script that completes commands, options and file names in a shell. Load it at "
        'once with `eval "$(difformer completion bash)"`, or write it to the folder of your shell.',
        "bash > ~/.local/share/bash-completion/completions/difformer",
        "zsh > ~/.zfunc/_difformer",
    )
    parser.add_argument("shell", choices=SHELLS, help="the shell")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the script."""
    import shtab

    parser = args.build_parser()
    mark_files(parser)
    print(shtab.complete(parser, args.shell))
    return 0


def mark_files(parser: argparse.ArgumentParser) -> None:
    """Say which arguments of a parser and its subcommands are files: their metavar tells."""
    import shtab

    for action in parser._actions:
        if isinstance(action.metavar, str) and action.metavar in KINDS:
            action.complete = getattr(shtab, KINDS[action.metavar])  # type: ignore[attr-defined]
        if isinstance(action, argparse._SubParsersAction):
            for subparser in action.choices.values():
                mark_files(subparser)
