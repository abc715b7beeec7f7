"""Importing this module registers all samplers in this folder and below."""

from importlib import import_module
from pkgutil import walk_packages

from difformer_plugin import diffusion

for module in walk_packages(diffusion.__path__, f"{diffusion.__name__}."):
    if module.name.rpartition(".")[2] in ("sampler", "samplers"):
        import_module(module.name)
