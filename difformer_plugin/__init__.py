"""Diffusion translation for fairseq.

Importing the package is cheap and registers nothing. fairseq registers the task, the model and the
criterion when it imports this folder as its ``--user-dir``; a script calls :func:`register` first.
"""

__version__ = "0.1.0"


def register():
    """Register task, model and criterion with fairseq (imports fairseq; may be called again)."""
    from difformer_plugin import registration  # noqa: F401  (importing it registers)
