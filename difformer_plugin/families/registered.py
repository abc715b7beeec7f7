"""Importing this registers every family with fairseq: the `model` of each folder beside it."""

from importlib import import_module
from pkgutil import iter_modules

from difformer_plugin import families

for module in iter_modules(families.__path__):
    if module.ispkg:
        import_module(f"{families.__name__}.{module.name}.model")
