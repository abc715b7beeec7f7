"""The file of --decoding-settings: options of decoding by name, in TOML."""

import json
import logging
import tomllib
from contextlib import contextmanager
from dataclasses import fields
from typing import get_args

from difformer_plugin.decoding.options import DecodingOptions
from difformer_plugin.errors import UserError
from difformer_plugin.storage.files import atomic_text

logger = logging.getLogger(__name__)
OPTIONS = {f.name: f for f in fields(DecodingOptions) if f.name != "_name"}
KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text in quotes"}


def read_settings(path):
    """The options that a file sets: name -> value.

    Raises:
        UserError: the file cannot be read, or sets what no option is or takes.
    """
    remedy = "give one that `difformer tune` has written, or lines as: decoding_steps = 10"
    try:
        with open(path, "rb") as file:
            values = tomllib.load(file)
    except OSError as error:
        raise UserError(f"--decoding-settings {path}: {error.strerror}; {remedy}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"--decoding-settings {path} is not a TOML file ({reason}): {remedy}"
        ) from error
    for name, value in values.items():
        if name not in OPTIONS:
            raise UserError(
                f"--decoding-settings {path}: no such option as {name}; there are "
                f"{', '.join(sorted(OPTIONS))}"
            )
        kind = _kind(OPTIONS[name])
        # TOML's true is no number, and its 1 is a number of any kind
        if type(value) is not kind and not (kind is float and type(value) is int):
            raise UserError(
                f"--decoding-settings {path}: {name} must be {KINDS[kind]}, not {_toml(value)}"
            )
    return values


def write_settings(path, values, comments=()):
    """Write a file that `read_settings` reads.

    Args:
        values: option -> value; None, for which TOML has no word, is left out.
        comments: lines that tell a reader what the settings are good for.
    """
    lines = [f"# {line}".rstrip() for line in comments]
    lines += [f"{name} = {_toml(value)}" for name, value in values.items() if value is not None]
    with atomic_text(path) as file:
        file.writelines(f"{line}\n" for line in lines)


def merge(configured, given, path):
    """The options of decoding from all who have a say.

    What is asked for by name in a call (`given`) beats the file, and the file beats what the
    configuration leaves at its default. A configured value that is neither the default nor the
    file's is somebody's wish too, and no rule could please both.

    Args:
        configured: the task's configuration, which has all the options.
        given: has those that a call names: keyword arguments of `translate`, --eval-bleu-args.
        path: the file, or None.
    Returns:
        DecodingOptions.
    Raises:
        UserError: the file cannot be used, or contradicts the configuration.
    """
    merged = {name: getattr(configured, name) for name in OPTIONS}
    asked = {name: getattr(given, name) for name in OPTIONS if hasattr(given, name)}
    values = read_settings(path) if path else {}
    for name, value in values.items():
        if name not in asked and merged[name] not in (OPTIONS[name].default, value):
            raise UserError(
                f"both {_option(name, merged[name])} and --decoding-settings {path} "
                f"({name} = {_toml(value)}) set it: leave one out"
            )
    if values:
        shown = ", ".join(f"{name} = {_toml(value)}" for name, value in values.items())
        logger.info(f"options of decoding in {path}: {shown}")
    return DecodingOptions(**(merged | values | asked))


@contextmanager
def blaming(path):
    """Say of a mistake in options that a file had a part in them."""
    try:
        yield
    except UserError as error:
        if not path:
            raise
        raise UserError(f"{error} (with the options that {path} sets)") from error


def _kind(field):
    """The type of an option's value: bool, int, float or str."""
    return next((kind for kind in get_args(field.type) if kind is not type(None)), field.type)


def _option(name, value):
    """An option as it is given on the command line."""
    written = f"--{name.replace('_', '-')}"
    return written if value is True else f"{written} {value}"


def _toml(value):
    """A value as TOML has it, whose numbers and text are also JSON's."""
    return json.dumps(value, ensure_ascii=False, default=str)
