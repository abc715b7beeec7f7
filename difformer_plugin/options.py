"""Fields of configurations: fairseq turns each into an option of the command line."""

from dataclasses import field
from typing import Any


def option(default: Any, text: str) -> Any:
    """A field of a configuration dataclass.

    Args:
        default: its default value.
        text: its help text, without which fairseq makes no option of it.
    """
    return field(default=default, metadata={"help": text})


def flag(name: str) -> str:
    """The name of a field as it is typed on the command line: `max_dgs` -> `--max-dgs`."""
    return f"--{name.replace('_', '-')}"
