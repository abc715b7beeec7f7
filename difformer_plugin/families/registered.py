"""Importing this module registers the models and criteria of every family with fairseq."""

from difformer_plugin.families.embeddings import model as _embeddings  # noqa: F401
from difformer_plugin.families.insertion import model as _insertion  # noqa: F401
from difformer_plugin.families.tokens import model as _tokens  # noqa: F401
