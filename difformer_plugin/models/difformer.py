"""The path of earlier versions: the model moved to `difformer_plugin.families.embeddings.model`."""

from difformer_plugin.families.embeddings.model import Difformer

__all__ = ["Difformer"]
