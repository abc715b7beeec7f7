"""The command `difformer`."""

import argparse
import sys
from collections.abc import Sequence

from difformer_plugin import __version__
from difformer_plugin.cli import (
    average,
    bench,
    check_reference,
    convert,
    demo,
    distill,
    evaluate,
    factor,
    prepare,
    probe,
    tune,
    user_dir,
)
from difformer_plugin.errors import UserError

SUBCOMMANDS = (
    demo,
    distill,
    prepare,
    evaluate,
    factor,
    probe,
    tune,
    bench,
    average,
    convert,
    check_reference,
    user_dir,
)


def build_parser() -> argparse.ArgumentParser:
    """The parser, with a subparser for each subcommand."""
    parser = argparse.ArgumentParser(
        prog="difformer",
        description="Tools for diffusion translation with fairseq. Training and translation "
        "themselves are done by fairseq's commands.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    for module in SUBCOMMANDS:
        module.add_parser(subparsers)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand.

    Args:
        argv: arguments; those of the process by default.
    Returns:
        the exit status: that of the subcommand, 2 after a UserError or OSError, which is printed as
        one line, and 130 after Ctrl-C.
    """
    args = build_parser().parse_args(argv)
    try:
        return args.run(args)
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130  # as shells report it


if __name__ == "__main__":
    sys.exit(main())
