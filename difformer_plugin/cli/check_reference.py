"""`difformer check-reference`: compare with recorded values of the authors' implementation."""

import argparse
from typing import Any

from difformer_plugin.cli import add_command


def add_parser(subparsers: Any) -> None:
    """Add the subcommand."""
    parser = add_command(
        subparsers,
        "check-reference",
        "compare with records of the authors' implementation",
        "Recompute values that the authors' implementation gave for a checkpoint, such "
        "as embeddings, losses and decoding steps, and compare. The exit status is 0 if all agree, "
        "and 1 otherwise.",
        "recorded",
    )
    parser.add_argument(
        "folder", help="folder with checkpoint.pt, settings.json, expected.npz and data-bin/"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print a row for each array."""
    from difformer_plugin import register

    register()
    from difformer_plugin.interop.reference import compare, load_reference, recompute

    *ours, expected = load_reference(args.folder)
    rows = compare(recompute(*ours, expected), expected)
    print(f"{'array':<32}{'shape':<20}{'largest difference':>20}")
    for name, shape, difference, passed in rows:
        print(f"{name:<32}{shape!s:<20}{difference:>20.3g}  {'ok' if passed else 'DIFFERS'}")
    failed = sum(not passed for *_, passed in rows)
    print(f"{len(rows) - failed} of {len(rows)} arrays agree")
    return 1 if failed else 0
