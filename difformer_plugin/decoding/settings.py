"""The file that --decoding-settings reads: decoding options by name, in TOML."""

import json
import logging
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from os import PathLike
from typing import Any

from difformer_plugin.decoding.options import TYPE_NAMES, DecodingOptions, fits, kind_of
from difformer_plugin.errors import UserError
from difformer_plugin.options import flag
from difformer_plugin.storage.files import atomic_text

logger = logging.getLogger(__name__)
OPTIONS = {f.name: f for f in fields(DecodingOptions) if f.name != "_name"}
RETIRED = {"halt_after": 0}  # retired options: the value that had no effect


def read_settings(path: str | PathLike) -> dict[str, Any]:
    """Read the options that a file sets, as name -> value.

    Raises:
        UserError: the file cannot be read, has an unknown option, or a value of the wrong type.
    """
    remedy = "give a file written by `difformer tune`, or one with lines like: decoding_steps = 10"
    try:
        with open(path, "rb") as file:
            values = tomllib.load(file)
    except OSError as error:
        raise UserError(f"--decoding-settings {path}: {error.strerror}; {remedy}") from error
    except (ValueError, RecursionError) as error:  # not TOML, not UTF-8, too large a number
        reason = str(error).splitlines()[0]
        raise UserError(
            f"--decoding-settings {path} is not a TOML file ({reason}): {remedy}"
        ) from error
    for name, neutral in RETIRED.items():
        if values.get(name) == neutral:
            del values[name]
    for name, value in values.items():
        if name not in OPTIONS:
            raise UserError(
                f"--decoding-settings {path}: no such option as {name}; there are "
                f"{', '.join(sorted(OPTIONS))}"
            )
        check_type(name, value, f"--decoding-settings {path}: ")
    return values


def check_type(name: str, value: Any, where: str = "") -> None:
    """Check the type of an option's value, as TOML or JSON has it.

    Args:
        name: of an option in OPTIONS.
        where: begins the message.
    Raises:
        UserError: it is of another type.
    """
    kind = kind_of(OPTIONS[name])
    if not fits(value, kind):
        raise UserError(f"{where}{name} must be {TYPE_NAMES[kind]}, not {_toml(value)[:80]}")


def write_settings(
    path: str | PathLike, values: Mapping[str, Any], comments: Iterable[str] = ()
) -> None:
    """Write a file that `read_settings` can read.

    Args:
        path: the file, which is replaced atomically.
        values: option -> value; options with the value None are omitted, since TOML has no null.
        comments: lines of a comment at the top of the file.
    """
    lines = [f"# {line}".rstrip() for line in comments]
    lines += [f"{name} = {_toml(value)}" for name, value in values.items() if value is not None]
    with atomic_text(path) as file:
        file.writelines(f"{line}\n" for line in lines)


def check_not_both(given: Mapping[str, Any], values: Mapping[str, Any], path: Any) -> None:
    """Check that options of the command line and those of a file do not contradict each other.

    Args:
        given: those of the command line; values: those of the file; path: the file.
    Raises:
        UserError: they do.
    """
    for name, value in values.items():
        if name in given and given[name] != value:
            raise UserError(
                f"both {_option(name, given[name])} and --decoding-settings {path} "
                f"({name} = {_toml(value)}) set this option: leave one out"
            )


def merge(configured: Any, given: Any, path: str | PathLike | None) -> DecodingOptions:
    """Merge decoding options from a call, a file and the configuration, in order of precedence.

    The file overrides options that the configuration leaves at their defaults. If both set an
    option to different values, that is an error.

    Args:
        configured: the task's configuration, which has all options as attributes.
        given: has the options of a call as attributes: the keyword arguments of `translate`, or
            those of --eval-bleu-args.
        path: the file, or None.
    Raises:
        UserError: the file cannot be used, or contradicts the configuration.
    """
    merged = {name: getattr(configured, name) for name in OPTIONS}
    asked = {name: getattr(given, name) for name in OPTIONS if hasattr(given, name)}
    values = read_settings(path) if path else {}
    set_before = {n: v for n, v in merged.items() if n not in asked and v != OPTIONS[n].default}
    check_not_both(set_before, values, path)
    if values:
        shown = ", ".join(f"{name} = {_toml(value)}" for name, value in values.items())
        logger.info(f"decoding options from {path}: {shown}")
    return DecodingOptions(**(merged | values | asked))


@contextmanager
def mention_settings_file(path: str | PathLike | None) -> Iterator[None]:
    """Add to a UserError about decoding options that a settings file set some of them."""
    try:
        yield
    except UserError as error:
        if not path:
            raise
        raise UserError(f"{error} (with the options that {path} sets)") from error


def _option(name: str, value: Any) -> str:
    """An option as it is typed on the command line."""
    return flag(name) if value is True else f"{flag(name)} {value}"


def _toml(value: Any) -> str:
    """A value in TOML; its numbers, booleans and strings are written as in JSON."""
    return json.dumps(value, ensure_ascii=False, default=str)
