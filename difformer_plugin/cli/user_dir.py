"""`difformer user-dir`: print the folder for fairseq's --user-dir."""

import argparse
from pathlib import Path
from typing import Any

import difformer_plugin
from difformer_plugin.cli import add_command


def add_parser(subparsers: Any) -> None:
    """Add the subcommand."""
    parser = add_command(
        subparsers,
        "user-dir",
        "print the folder for fairseq's --user-dir",
        "Print the folder of this package, for fairseq's --user-dir. It works for an "
        "installed package and for a checkout. With it, fairseq-train, fairseq-generate and so on "
        "know the task and the models.",
        "",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the folder of the package."""
    print(Path(difformer_plugin.__file__).resolve().parent)
    return 0
