"""Options that cannot work with our tasks are refused before anything is read.

Fault: fairseq finds out in the middle of a job that a value cannot be parsed or that a model has no
such thing as an attention to copy words by, or ignores an option silently. `--num-shards` and
`--shard-id` are not read by any command of this version.

Patch: `parse_args_and_arch` checks the options of our tasks by `tasks.fairseq_options` and
`tasks.option_values`, warns of those without effect and sets them to their defaults, and hands the
shards to what `fairseq-generate` divides its batches by. A value that does not parse is one line.

Other tasks: only the last sentence applies.

Drop it: `--num-shards` when fairseq reads it again; the checks never.
"""

import argparse
import atexit
import logging
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import fields
from functools import cache, wraps
from typing import Any

from fairseq import options, utils
from fairseq.registry import REGISTRIES
from fairseq.tasks import TASK_REGISTRY

from difformer_plugin.data.data_bin import check_folders
from difformer_plugin.errors import UserError
from difformer_plugin.families.contract import DiffusionTask
from difformer_plugin.options import flag
from difformer_plugin.tasks.fairseq_options import (
    DECODING_OPTIONS,
    OF_EVAL_BLEU,
    Verdict,
    rules_of,
)
from difformer_plugin.tasks.option_values import check_values

logger = logging.getLogger(__name__)
# An option that tells the command from the others, the most special command first.
TELLING = {
    "buffer_size": "interactive",
    "nbest": "generate",
    "max_update": "train",
    "path": "validate",
}
_ABSENT = object()


def command_of(parser: argparse.ArgumentParser) -> str | None:
    """Which of fairseq's commands a parser is for; None for one that is not in the table."""
    names = {action.dest for action in parser._actions}
    return next((command for option, command in TELLING.items() if option in names), None)


def given_options(
    parser: argparse.ArgumentParser, arguments: Sequence[str] | None
) -> dict[str, Any]:
    """The options that were given and are not at their defaults, by name."""
    absent = argparse.Namespace(**{action.dest: _ABSENT for action in parser._actions})
    parsed, _ = parser.parse_known_args(arguments, absent)
    return {
        name: value
        for name, value in vars(parsed).items()
        if value is not _ABSENT and value != parser.get_default(name)
    }


def check_options(command: str, given: dict[str, Any], warns: bool = True) -> set[str]:
    """Refuse and warn by the table.

    Args:
        given: the options that are not at their defaults; warns: whether to log warnings.
    Returns:
        the names of the options that have no effect.
    Raises:
        UserError: an option is refused.
    """
    unread: dict[str, list[str]] = {}
    for name, rule in rules_of(command):
        if name not in given:
            continue
        if rule.verdict is Verdict.REFUSED:
            reason = rule.reason.replace("`", "")
            where = f"in fairseq-{command}" if name in DECODING_OPTIONS else "for diffusion models"
            raise UserError(f"{flag(name)} is not available {where}: {reason}")
        if rule.verdict is Verdict.NO_EFFECT:
            unread.setdefault(rule.reason.replace("`", ""), []).append(name)
    for reason, names in unread.items() if warns else ():
        flags = ", ".join(map(flag, names))
        _warn(f"no effect in fairseq-{command} with diffusion models: {flags} ({reason})")
    idle = sorted(OF_EVAL_BLEU.get(command, set()) & given.keys())
    if idle and warns and not given.get("eval_bleu"):
        _warn(f"no effect without --eval-bleu: {', '.join(map(flag, idle))}")
    return {name for names in unread.values() for name in names}


@cache
def _warn(message: str) -> None:
    """Log a warning once; some commands parse their options several times."""
    logger.warning(message)


def _forget(
    parser: argparse.ArgumentParser, namespace: argparse.Namespace, names: set[str], remove: bool
) -> None:
    """Set options to their defaults, or remove them, so that fairseq does nothing with them.

    The options of what a name chose, such as those of an optimizer, go with it.
    """
    for name in names & {"criterion", "optimizer", "lr_scheduler"}:
        chosen = REGISTRIES[name]["dataclass_registry"].get(vars(namespace).get(name))
        for field in fields(chosen) if chosen else ():
            vars(namespace).pop(field.name, None)
    for action in parser._actions:
        if action.dest not in names:
            continue
        if remove:
            vars(namespace).pop(action.dest, None)
        else:
            default = action.default
            text = isinstance(default, str)
            value = parser._get_value(action, default) if text else default
            setattr(namespace, action.dest, value)


def _shard(namespace: argparse.Namespace, runs: bool) -> None:
    """Let fairseq-generate translate one shard of several.

    Args:
        runs: whether the command runs, and not only reads its options.
    Raises:
        UserError: there is no such shard, or its results would replace another's.
    """
    shards, shard = namespace.num_shards, namespace.shard_id
    if shards < 1:
        raise UserError(f"--num-shards must be at least 1, not {shards}")
    if not 0 <= shard < shards:
        raise UserError(
            f"--shard-id must lie between 0 and {shards - 1}, below --num-shards, not {shard}"
        )
    namespace.distributed_world_size, namespace.distributed_rank = shards, shard
    if shards > 1 and namespace.results_path and runs:
        _reserve(os.path.join(namespace.results_path, f"generate-{namespace.gen_subset}.txt"))


@cache
def _reserve(path: str) -> None:
    """Create the file of a shard's results, which fairseq opens for writing later.

    If the command ends before it has written anything, the file goes with it.

    Raises:
        UserError: it exists.
    """
    os.makedirs(os.path.dirname(path), exist_ok=True)
    try:
        open(path, "x").close()
    except FileExistsError:
        raise UserError(
            f"--results-path: {path} exists, perhaps of another shard: give each shard a folder of "
            "its own, or remove the file"
        ) from None
    atexit.register(_remove_empty, path)


def _remove_empty(path: str) -> None:
    """Remove a file if it is empty."""
    with suppress(OSError):
        if not os.path.getsize(path):
            os.remove(path)


def _find_languages(namespace: argparse.Namespace, trains: bool) -> None:
    """Set languages that have to be known before the task finds them itself.

    Fairseq's tokenisers read them, and a training keeps them in its checkpoints.

    Args:
        trains: whether a training follows.

    Raises:
        UserError: they cannot be inferred from the data.
    """
    if (namespace.tokenizer or trains) and not (namespace.source_lang and namespace.target_lang):
        folders = utils.split_paths(namespace.data) if namespace.data else []
        pair = check_folders(folders, namespace.source_lang, namespace.target_lang)
        namespace.source_lang, namespace.target_lang = pair


def _explain_bad_values(parser: argparse.ArgumentParser) -> None:
    """Let a value that cannot be converted end in argparse's error, whatever is raised."""
    original = parser._get_value

    def get_value(action: argparse.Action, text: str) -> Any:
        try:
            return original(action, text)
        except Exception as error:
            if isinstance(error, argparse.ArgumentError) and "lambda" not in str(error):
                raise
            raise argparse.ArgumentError(action, f"invalid value: {text!r}") from None

    parser._get_value = get_value  # type: ignore[method-assign, assignment]


def _checked(original: Callable) -> Callable:
    @wraps(original)
    def parse_args_and_arch(
        parser: argparse.ArgumentParser,
        input_args: Any = None,
        parse_known: bool = False,
        suppress_defaults: bool = False,
        *rest: Any,
        **more: Any,
    ) -> Any:
        _explain_bad_values(parser)
        parsed = original(parser, input_args, parse_known, suppress_defaults, *rest, **more)
        namespace = parsed[0] if parse_known else parsed
        task = TASK_REGISTRY.get(vars(namespace).get("task"))
        command = command_of(parser)
        if task and issubclass(task, DiffusionTask) and command:
            arguments = sys.argv[1:] if input_args is None else input_args
            given = given_options(parser, arguments)
            # With suppressed defaults fairseq calls itself, and the inner call has checked.
            unread = check_options(command, given, warns=not suppress_defaults)
            _forget(parser, namespace, unread, suppress_defaults)
            if suppress_defaults:
                return parsed
            read = {name: value for name, value in given.items() if name not in unread}
            check_values(command, namespace, read, runs=input_args is None)
            _find_languages(namespace, command == "train" and input_args is None)
            if command == "generate":
                _shard(namespace, runs=input_args is None)
        return parsed

    return parse_args_and_arch


def install() -> None:
    """Replace `options.parse_args_and_arch`."""
    options.parse_args_and_arch = _checked(options.parse_args_and_arch)
