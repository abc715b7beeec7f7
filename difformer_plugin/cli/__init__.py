"""What does a person type? One command, `difformer`, with a file a subcommand."""

import logging


def register_quietly():
    """Register with fairseq for a command that prints its own results: logs tell of trouble only.

    fairseq sets the root logger to show everything, also what other libraries debug with.
    """
    from difformer_plugin import register

    register()
    logging.getLogger().setLevel(logging.WARNING)


def add_post_process(add):
    """The option that says how subwords become words."""
    add(
        "--post-process",
        default="@@ ",
        metavar="MARK",
        help="how subwords are joined to words, as in fairseq-generate; default: '@@ '",
    )
