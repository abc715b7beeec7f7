"""Import fairseq without scikit-learn and scipy.stats, until they are needed.

``import fairseq`` imports all of fairseq's tasks and criteria. Two of them, for audio and for
classifying sentences, import these two packages, which takes a third of the start-up of a command.
Translation never calls them.

This works where the plug-in is imported before fairseq: in `difformer`, the hub interface and
scripts. fairseq's own commands import fairseq first.
"""

import importlib
import importlib.abc
import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

# what fairseq's modules import from these packages while they are loaded
USED = {
    "sklearn": ("metrics",),
    "sklearn.metrics": ("f1_score", "matthews_corrcoef", "roc_curve", "roc_auc_score"),
    "scipy.stats": ("pearsonr", "spearmanr"),
}


class Finder(MetaPathFinder):
    """Finds fairseq as the other finders do, and loads it with a `Loader`."""

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> ModuleSpec | None:
        """The specification of fairseq; None for other modules, which the other finders find."""
        if fullname != "fairseq":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = Loader(spec.loader)
        return spec


class Loader(importlib.abc.Loader):
    """Loads a module as another loader does, with `placeholders` while its code runs."""

    def __init__(self, loader: importlib.abc.Loader):
        self.loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """What the other loader creates."""
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Run the module's code."""
        with placeholders():
            self.loader.exec_module(module)

    def __getattr__(self, name: str) -> Any:  # such as `get_source`, which tracebacks use
        return getattr(self.loader, name)


def install() -> None:
    """Make the first ``import fairseq`` use the placeholders. No effect after that import."""
    if "fairseq" not in sys.modules:
        sys.meta_path.insert(0, Finder())


@contextmanager
def placeholders() -> Iterator[None]:
    """Within the context, modules of `USED` that are not imported yet are placeholders.

    A function imported from a placeholder imports the real module at its first call.
    """
    added = {name: ModuleType(name) for name in USED if name not in sys.modules}
    for name, module in added.items():
        for attribute in USED[name]:
            child = f"{name}.{attribute}"
            setattr(module, attribute, added.get(child) or later(name, attribute))
    sys.modules.update(added)
    try:
        yield
    finally:
        for name in added:
            del sys.modules[name]


def later(module: str, function: str) -> Callable[..., Any]:
    """A function of a module, which is imported at the first call."""

    def call(*args: Any, **kwargs: Any) -> Any:
        return getattr(importlib.import_module(module), function)(*args, **kwargs)

    call.__name__ = call.__qualname__ = function
    return call
