"""`difformer convert`: convert a checkpoint of the authors' implementation."""

import argparse
from typing import Any

from difformer_plugin.cli import add_command


def add_parser(subparsers: Any) -> None:
    """Add the subcommand."""
    parser = add_command(
        subparsers,
        "convert",
        "convert a checkpoint of the authors' implementation",
        "Convert a checkpoint of the authors' implementation of Difformer to one of "
        "this implementation. No code in the checkpoint is run.",
        "checkpoint_best.pt converted.pt",
    )
    parser.add_argument("input", metavar="IN", help="checkpoint of the authors' implementation")
    parser.add_argument("output", metavar="OUT", help="checkpoint to write")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Convert the checkpoint, and print the number of weights."""
    from difformer_plugin import register

    register()
    from difformer_plugin.checkpoints.saving import save_atomically
    from difformer_plugin.interop.conversion import convert_checkpoint

    checkpoint = convert_checkpoint(args.input)
    save_atomically(checkpoint, args.output)
    print(f"{args.output}: {len(checkpoint['model'])} weights converted")
    return 0
