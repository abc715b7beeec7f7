"""`difformer options`: the options of fairseq's commands that come from this plug-in."""

import argparse
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from difformer_plugin.cli import add_command, register_quietly
from difformer_plugin.errors import UserError
from difformer_plugin.options import flag

KINDS = {
    "model": "of fairseq-train, for the network and the diffusion",
    "criterion": "of fairseq-train, for the loss",
    "decoding": "of fairseq-generate, fairseq-interactive, and of --eval-bleu in training",
}


def add_parser(subparsers: Any) -> None:
    """Add the subcommand."""
    parser = add_command(
        subparsers,
        "options",
        "print the options that fairseq's --help cannot show",
        "Print what `fairseq-train --help` cannot show, since it ends before it knows the model: "
        "the options of the models, their losses and decoding, with their defaults.",
        "",
        "decoding",
        "model --arch difformer_paper_iwslt_de_en",
    )
    parser.add_argument(
        "kind", nargs="?", choices=tuple(KINDS), metavar="model|criterion|decoding", help="which"
    )
    parser.add_argument(
        "--arch", metavar="NAME", help="of this architecture only, with its own defaults"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the options."""
    register_quietly()
    print("\n\n".join(sections(args.kind, args.arch)))
    return 0


def sections(kind: str | None, arch: str | None) -> Iterator[str]:
    """A text for each kind of options, or for the given one.

    Raises:
        UserError: no diffusion model has this --arch.
    """
    for name, description in KINDS.items():
        if kind in (None, name):
            for title, config in configurations(name, arch):
                yield f"{title}, {description}\n\n{render(config)}"


def configurations(kind: str, arch: str | None) -> Iterator[tuple[str, Any]]:
    """(title, configuration) of each family, or of that of an architecture."""
    from fairseq.criterions import CRITERION_DATACLASS_REGISTRY
    from fairseq.models import ARCH_MODEL_REGISTRY, MODEL_DATACLASS_REGISTRY, MODEL_REGISTRY

    from difformer_plugin.families.contract import FAMILIES
    from difformer_plugin.tasks.diffusion_translation import DiffusionTranslationConfig

    if kind == "decoding":
        yield "Options", DiffusionTranslationConfig()
        return
    known = {n: m for n, m in ARCH_MODEL_REGISTRY.items() if issubclass(m, tuple(FAMILIES))}
    if arch is not None and arch not in known:
        raise UserError(f"--arch {arch}: no such diffusion model; there are {', '.join(known)}")
    names = [name for name in known if name in MODEL_REGISTRY] if arch is None else [arch]
    for name in names:
        if kind == "model":
            yield f"--arch {name}: options", MODEL_DATACLASS_REGISTRY[name]()
        else:
            criterion = known[name].criterion
            yield f"--criterion {criterion}: options", CRITERION_DATACLASS_REGISTRY[criterion]()


def render(config: Any) -> str:
    """The options of a configuration, each with its default and its help text."""
    from fairseq.tasks.translation import TranslationConfig

    parser = argparse.ArgumentParser(add_help=False)
    own = {option.name for option in fields(TranslationConfig)}
    for option in fields(config):
        text, default = option.metadata.get("help"), getattr(config, option.name)
        # fairseq makes no option of what has no help, and its --help shows those of its own task
        if text is None or (isinstance(config, TranslationConfig) and option.name in own):
            continue
        if default is True:
            text = f"{text} (on; off with --no-{option.name.replace('_', '-')})"
        elif default is not None and default is not False:
            text = f"{text} (default: {default})"
        kind: Any = {"action": "store_true"} if isinstance(default, bool) else {"metavar": "VALUE"}
        parser.add_argument(flag(option.name), help=text.replace("%", "%%"), **kind)
    formatter = argparse.HelpFormatter("", max_help_position=34)
    formatter.add_arguments(parser._actions)
    return formatter.format_help().rstrip()
