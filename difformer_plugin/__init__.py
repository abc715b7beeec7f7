"""Diffusion translation for fairseq.

Importing the package is fast and registers nothing. fairseq registers the task, the models and the
criteria when it imports this folder as its ``--user-dir``; a script calls :func:`register` first.
"""

from difformer_plugin import fairseq_import

__version__ = "0.1.0"

fairseq_import.install()


def register() -> None:
    """Register the task, the models and the criteria with fairseq.

    It imports fairseq and torch. Further calls have no effect.
    """
    from difformer_plugin import registration  # noqa: F401  (importing it registers)
