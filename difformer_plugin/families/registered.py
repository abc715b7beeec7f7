"""Importing this module registers the models and criteria of every family with fairseq."""

from difformer_plugin.families.embeddings import model as _embeddings  # noqa: F401
from difformer_plugin.families.embeddings import objective as _embeddings_objective  # noqa: F401
from difformer_plugin.families.tokens import model as _tokens  # noqa: F401
from difformer_plugin.families.tokens import objective as _tokens_objective  # noqa: F401
