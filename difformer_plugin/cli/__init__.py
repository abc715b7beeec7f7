"""What does a person type? The command `difformer`, with a file for each subcommand.

These files parse arguments and print results; the work is done in the other folders.
"""

import logging
from collections.abc import Callable


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
