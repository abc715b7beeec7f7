"""The path of earlier versions: the model moved to `difformer_plugin.families.tokens.model`."""

from difformer_plugin.families.tokens.model import DiscreteDiffusion

__all__ = ["DiscreteDiffusion"]
