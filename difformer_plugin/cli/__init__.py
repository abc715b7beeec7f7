"""What does a person type? The command `difformer`, with a file for each subcommand.

These files parse arguments and print results; the work is done in the other folders.
"""

import argparse
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from difformer_plugin.errors import UserError

EXAMPLES = "examples:\n"


class HelpFormatter(argparse.HelpFormatter):
    """Wraps descriptions, and leaves the examples after them as they are."""

    def __init__(self, prog: str):
        super().__init__(prog, max_help_position=21)  # the overview has a line for each command

    def add_argument(self, action: argparse.Action) -> None:
        super().add_argument(action)
        if isinstance(action, argparse._SubParsersAction):
            self._action_max_length += 2  # argparse forgets that commands are indented

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if text.startswith(EXAMPLES) else super()._fill_text(text, width, indent)


def add_command(
    subparsers: Any, name: str, summary: str, description: str, *examples: str, within: str = ""
) -> argparse.ArgumentParser:
    """Add a subcommand.

    Args:
        subparsers: what `add_subparsers` returned.
        summary: a line for the list of commands.
        description: sentences for its own help.
        examples: commands without `difformer NAME`, which its help ends with.
        within: the command that it is a part of, if any.
    """
    command = f"{within} {name}".strip()
    lines = [f"  difformer {command} {example}".rstrip() for example in examples]
    return subparsers.add_parser(
        name,
        help=summary,
        description=description,
        epilog=EXAMPLES + "\n".join(lines),
        formatter_class=HelpFormatter,
    )


def register_quietly() -> None:
    """Register with fairseq, and show warnings and errors only.

    fairseq sets the root logger to show everything, debug messages of other libraries included.
    """
    from difformer_plugin import register

    register()
    logging.getLogger().setLevel(logging.WARNING)


def add_post_process(add: Callable) -> None:
    """Add the option --post-process.

    Args:
        add: a parser's `add_argument`.
    """
    add(
        "--post-process",
        default="@@ ",
        metavar="MARK",
        help="how subwords are joined, as in fairseq-generate; default: '@@ '",
    )


def add_split(add: Callable, default: str, old_name: str) -> None:
    """Add the option --split, which also has an older name: `gen_subset` or `subset`.

    Args:
        add: a parser's `add_argument`.
        old_name: of the attribute; the option of this name is still accepted.
    """
    older = f"--{old_name.replace('_', '-')}"
    add("--split", dest=old_name, default=default, metavar="SPLIT", help=f"default: {default}")
    add(older, dest=old_name, default=argparse.SUPPRESS, help=argparse.SUPPRESS)


def add_json(add: Callable, took_a_file: bool = False) -> None:
    """Add --json, which prints an object instead of a table, and --json-out, which writes it.

    Args:
        add: a parser's `add_argument`.
        took_a_file: --json was once followed by the file that --json-out has now; it still may be.
    """
    if took_a_file:
        text = "print one JSON object instead of the report; --json FILE means --json-out FILE"
        add("--json", nargs="?", const="-", metavar="FILE", help=text)
    else:
        add("--json", action="store_true", help="print one JSON object instead of the report")
    add("--json-out", type=Path, metavar="FILE", help="also write the JSON object to a file")


def json_targets(args: argparse.Namespace) -> tuple[bool, Path | None]:
    """Whether to print the JSON object in place of the report, and the file to write it to.

    Raises:
        UserError: the file is a folder.
    """
    prints = args.json is True or args.json == "-"
    older = Path(args.json) if args.json and not prints else None
    file = args.json_out or older
    if file and file.is_dir():
        raise UserError(f"--json-out {file} is a folder: name a file")
    return prints, file


def print_result(
    args: argparse.Namespace, figures: Any, render: Callable[[], str], indent: int | None = 1
) -> None:
    """Print a report, or its figures as JSON; write these to the file of --json-out.

    Args:
        args: with the options of `add_json`.
        figures: what JSON can represent.
        render: gives the report.
    """
    from difformer_plugin.storage.files import atomic_text

    prints, file = json_targets(args)
    print(json.dumps(figures, indent=indent) if prints else render())
    if file:  # after the report, which would be lost if the file could not be written
        with atomic_text(file) as handle:
            json.dump(figures, handle, indent=indent)
