"""Importing this module registers everything with fairseq."""

from difformer_plugin.families import registered  # noqa: F401
from difformer_plugin.tasks import diffusion_translation  # noqa: F401
