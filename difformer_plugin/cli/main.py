"""The command `difformer`."""

import argparse
import sys

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


def build_parser():
    """The parser, with a subparser from each subcommand's module."""
    parser = argparse.ArgumentParser(
        prog="difformer", description="Diffusion translation for fairseq."
    )
    parser.add_argument("--version", action="version", version=__version__)
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    for module in SUBCOMMANDS:
        module.add_parser(subparsers)
    return parser


def main(argv=None):
    """Run a subcommand; a UserError becomes one line and exit status 2."""
    args = build_parser().parse_args(argv)
    try:
        return args.run(args)
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130  # what a shell says of a program that Ctrl-C ended


if __name__ == "__main__":
    sys.exit(main())
