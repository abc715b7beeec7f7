"""Named architectures: --arch NAME on the command line, `model: {_name: NAME}` in hydra."""

import sys
from collections.abc import Mapping
from dataclasses import field, fields, make_dataclass
from typing import Any

from fairseq.dataclass import FairseqDataclass
from fairseq.models import (
    ARCH_MODEL_NAME_REGISTRY,
    MODEL_DATACLASS_REGISTRY,
    register_model_architecture,
)
from hydra.core.config_store import ConfigStore


def register_architectures(
    name: str,
    config: type[FairseqDataclass],
    architectures: Mapping[str, Mapping[str, Any]],
) -> None:
    """Register the named architectures of a model. Options that the user gives win.

    fairseq fills in an architecture's options for the command line alone; hydra would take the
    defaults of the model without a word. So each architecture also gets a configuration, whose
    defaults are its own.

    Args:
        name: of the model, which is registered.
        config: the configuration of the model.
        architectures: name of an architecture -> its options that differ from the model's.
    """
    for arch, defaults in architectures.items():
        if arch == name:  # it came with the model
            continue

        def fill(args: Any, defaults: Mapping[str, Any] = defaults) -> None:
            for option, value in defaults.items():
                if not hasattr(args, option):
                    setattr(args, option, value)

        register_model_architecture(name, arch)(fill)
        ARCH_MODEL_NAME_REGISTRY[arch] = arch
        MODEL_DATACLASS_REGISTRY[arch] = kind = _with_defaults(config, arch, defaults)
        node = kind()
        node._name = arch
        ConfigStore.instance().store(name=arch, group="model", node=node, provider="fairseq")


def _with_defaults(
    config: type[FairseqDataclass], arch: str, defaults: Mapping[str, Any]
) -> type[FairseqDataclass]:
    """A subclass of a configuration with other defaults; pickle finds it beside its base."""
    changed = [
        (f.name, f.type, field(default=defaults[f.name], metadata=f.metadata))
        for f in fields(config)
        if f.name in defaults
    ]
    if missing := set(defaults) - {f.name for f in fields(config)}:
        raise ValueError(f"--arch {arch} sets {missing.pop()}, which {config.__name__} lacks")
    kind = make_dataclass(f"{config.__name__}_{arch}", changed, bases=(config,))
    kind.__module__ = config.__module__
    setattr(sys.modules[kind.__module__], kind.__name__, kind)
    return kind


def add_switches(parser: Any, architectures: Mapping[str, Mapping[str, Any]]) -> None:
    """Add --no-FLAG for each flag that an architecture turns on.

    Args:
        parser: an argparse parser or group whose arguments have no defaults.
    """
    flags = {
        option: None
        for defaults in architectures.values()
        for option, value in defaults.items()
        if value is True
    }
    for option in flags:
        name = option.replace("_", "-")
        parser.add_argument(
            f"--no-{name}",
            dest=option,
            action="store_false",
            help=f"turn off --{name}, which some architectures turn on",
        )
