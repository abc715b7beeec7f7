"""Diffusion models and criteria are built for tasks of diffusion alone, and --task is asked for.

Fault: fairseq builds any model and any criterion for any task, and the default of --task is
`translation`. A diffusion model then trains on sentences without BOS, and nothing says so; or a
command ends in a traceback, or calls the options of the right task unknown.

Patch: `build_model` and `build_criterion` raise a UserError that names the task; so does the parser
of options that belong to such a task. A checkpoint that was trained with another task is reported
when it is loaded.

Other tasks: models and criteria that are not of diffusion are built as before.

Drop it: when a model of fairseq's can say which tasks it is for.
"""

import argparse
import logging
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any, NoReturn

from fairseq import checkpoint_utils, criterions, models, options
from fairseq.criterions import CRITERION_REGISTRY
from fairseq.models import ARCH_MODEL_REGISTRY, MODEL_REGISTRY, FairseqEncoderDecoderModel
from fairseq.tasks import TASK_REGISTRY, FairseqTask

from difformer_plugin.errors import UserError
from difformer_plugin.families.contract import DiffusionTask, is_family
from difformer_plugin.families.criterion import DiffusionCriterion

logger = logging.getLogger(__name__)
DEFAULT = "translation"  # fairseq's default of --task


def task_name(kind: type) -> str:
    """The name under which a class of tasks is registered, or else the name of the class."""
    return next((name for name, task in TASK_REGISTRY.items() if task is kind), kind.__name__)


def model_class(name: str | None) -> type | None:
    """The class of an --arch or a registered model; None if there is none."""
    return ARCH_MODEL_REGISTRY.get(name) or MODEL_REGISTRY.get(name)


def _own_tasks() -> Iterator[tuple[str, type[FairseqTask]]]:
    """The registered tasks of diffusion, by name."""
    return ((name, kind) for name, kind in TASK_REGISTRY.items() if issubclass(kind, DiffusionTask))


def _names() -> str:
    """`--task NAME` of every task of diffusion."""
    return " or ".join(f"--task {name}" for name, _ in _own_tasks())


def _check_task(what: str, task: type) -> None:
    """Raise a UserError if a class of fairseq's tasks is not for diffusion."""
    if issubclass(task, FairseqTask) and not issubclass(task, DiffusionTask):
        given = task_name(task)
        default = ", fairseq's default" if given == DEFAULT else ""
        raise UserError(
            f"{what} needs {_names()}, not --task {given}{default}: give {_names()} when you train "
            "the model and whenever you load it"
        )


def check_model(name: str | None, task: type, trained: bool = False) -> None:
    """Check that a model and a class of tasks belong together.

    Tasks of diffusion train diffusion models. They also load encoder-decoders, as teachers.

    Args:
        name: the --arch of the model; trained: whether it comes from a checkpoint.
    Raises:
        UserError: they do not.
    """
    kind: Any = model_class(name)
    if kind is not None and is_family(kind):
        _check_task(f"{kind.title} (--arch {name})", task)
    elif issubclass(task, DiffusionTask) and not (trained and _may_teach(kind)):
        own = " or ".join(name for name, model in MODEL_REGISTRY.items() if is_family(model))
        what = f"a {kind.__name__} (--arch {name})" if kind else f"--arch {name}, which is unknown"
        raise UserError(
            f"--task {task_name(task)} cannot use {what}: a checkpoint must be of a diffusion "
            "model, or of an encoder-decoder that is its teacher"
            if trained
            else f"--task {task_name(task)} cannot train {what}: use --arch {own}, or one of their "
            "sizes, or the --task of that model"
        )


def _may_teach(kind: type | None) -> bool:
    """Whether models of a class can score what a diffusion model has translated."""
    return kind is not None and issubclass(kind, FairseqEncoderDecoderModel)


def _model_of_its_task(original: Callable) -> Callable:
    @wraps(original)
    def build_model(cfg: Any, task: Any, from_checkpoint: bool = False) -> Any:
        name = getattr(cfg, "_name", None) or getattr(cfg, "arch", None)
        check_model(name, type(task), from_checkpoint)
        return original(cfg, task, from_checkpoint)

    return build_model


def _criterion_of_its_task(original: Callable) -> Callable:
    @wraps(original)
    def build_criterion(cfg: Any, task: Any, *args: Any, **kwargs: Any) -> Any:
        name = getattr(cfg, "_name", None) or getattr(cfg, "criterion", None)
        kind = CRITERION_REGISTRY.get(name)
        if kind is not None and issubclass(kind, DiffusionCriterion):
            _check_task(f"--criterion {name}", type(task))
        return original(cfg, task, *args, **kwargs)

    return build_criterion


def _report_checkpoint(original: Callable) -> Callable:
    @wraps(original)
    def load_checkpoint_to_cpu(path: str, *args: Any, **kwargs: Any) -> dict:
        state = original(path, *args, **kwargs)
        if state.get("cfg"):  # not one of old versions of fairseq
            name = name_of(state["cfg"], "task")
            model, task = model_class(name_of(state["cfg"], "model")), TASK_REGISTRY.get(name)
            if model and task and is_family(model) and not issubclass(task, DiffusionTask):
                logger.warning(
                    f"{path} was trained with --task {name}, on sentences without BOS, and does "
                    f"not translate as well as it could: train it again with {_names()}"
                )
        return state

    return load_checkpoint_to_cpu


def name_of(cfg: Any, part: str) -> str | None:
    """The name of the task or model in a checkpoint's configuration, of whatever kind it is."""
    own = cfg.get(part)
    own = vars(own) if isinstance(own, argparse.Namespace) else own or {}
    return own.get("_name")


def _options(kind: type[FairseqTask]) -> set[str]:
    """The options of a task on the command line."""
    parser = argparse.ArgumentParser(add_help=False)
    kind.add_args(parser)
    return set(parser._option_string_actions)


def _own_options() -> dict[str, str]:
    """Options that tasks of diffusion add to fairseq's translation: option -> name of the task."""
    known, found = _options(TASK_REGISTRY[DEFAULT]), {}
    for name, kind in _own_tasks():
        found |= dict.fromkeys(_options(kind) - known, name)
    return found


def _explain_unknown(parser: argparse.ArgumentParser) -> None:
    """Let a parser's error about unknown options name the task that they belong to."""
    original = parser.error

    def error(message: str) -> NoReturn:
        if message.startswith("unrecognized arguments"):
            tasks = _own_options()
            words = [word.partition("=")[0] for word in message.split()]
            if known := [word for word in dict.fromkeys(words) if word in tasks]:
                task, verb = tasks[known[0]], "belong" if len(known) > 1 else "belongs"
                raise UserError(
                    f"{', '.join(known)} {verb} to --task {task}, which is not the --task of this "
                    f"command (fairseq's default is {DEFAULT}): give --task {task}"
                )
        original(message)

    parser.error = error  # type: ignore[method-assign]


def _check_options(original: Callable) -> Callable:
    @wraps(original)
    def parse_args_and_arch(
        parser: argparse.ArgumentParser, input_args: Any = None, *args: Any, **kwargs: Any
    ) -> Any:
        _explain_unknown(parser)
        # fairseq-validate alone has no default, and looks up None
        if parser.get_default("task") is None and not _gives_task(parser, input_args):
            raise UserError(
                f"--task is missing: give the one that the model was trained with, {_names()} for "
                "diffusion models"
            )
        parsed = original(parser, input_args, *args, **kwargs)
        given = vars(parsed[0] if isinstance(parsed, tuple) else parsed)
        # commands that decode have a default --arch, and do not use it
        if given.get("arch", parser.get_default("arch")) != parser.get_default("arch"):
            check_model(given["arch"], TASK_REGISTRY[given["task"]])  # before any data are read
        return parsed

    return parse_args_and_arch


def _gives_task(parser: argparse.ArgumentParser, input_args: Any) -> bool:
    """Whether a command line names a task."""
    known, _ = parser.parse_known_args(input_args)
    return known.task is not None


def install() -> None:
    """Replace `build_model`, `build_criterion`, `load_checkpoint_to_cpu`, `parse_args_and_arch`."""
    models.build_model = _model_of_its_task(models.build_model)
    criterions.build_criterion = _criterion_of_its_task(criterions.build_criterion)
    checkpoint_utils.load_checkpoint_to_cpu = _report_checkpoint(
        checkpoint_utils.load_checkpoint_to_cpu
    )
    options.parse_args_and_arch = _check_options(options.parse_args_and_arch)
