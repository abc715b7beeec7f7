"""Importing this module registers all rerankers: each module here that does not choose one."""

from importlib import import_module
from pkgutil import iter_modules

from difformer_plugin import reranking

CHOOSERS = ("options", "registered", "weighted")

for module in iter_modules(reranking.__path__):
    if module.name not in CHOOSERS:
        import_module(f"{reranking.__name__}.{module.name}")
