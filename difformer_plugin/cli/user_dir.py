"""`difformer user-dir`: the folder that fairseq's --user-dir wants."""

from pathlib import Path

import difformer_plugin


def add_parser(subparsers):
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "user-dir", help="print the folder for fairseq's --user-dir, installed or in a checkout"
    )
    parser.set_defaults(run=run)


def run(args):
    """Print the package's folder."""
    print(Path(difformer_plugin.__file__).resolve().parent)
    return 0
