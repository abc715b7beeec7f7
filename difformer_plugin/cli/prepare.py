"""`difformer prepare`: make a data-bin from raw parallel text, by a recipe."""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from difformer_plugin.cli import add_command
from difformer_plugin.errors import UserError

if TYPE_CHECKING:
    from difformer_plugin.data.preparation import Summary


LANGUAGES = ("source_lang", "target_lang")
FLAG = {"action": argparse.BooleanOptionalAction}
KEYS: dict[str, dict[str, Any]] = {  # key of a recipe -> its option
    "bpe_merges": {
        "name": "bpe-merges",
        "type": int,
        "metavar": "N",
        "help": "merges of the joint BPE; 0 keeps whole words",
    },
    "sentencepiece": {
        "name": "sentencepiece",
        "type": int,
        "metavar": "N",
        "help": "a joint SentencePiece vocabulary of N pieces on text that is not tokenised, in "
        "place of BPE; needs the package sentencepiece",
    },
    "text.lowercase": {"name": "lowercase", "help": "lower-case all text", **FLAG},
    "text.tokenise": {"name": "tokenise", "help": "with the Moses tokeniser", **FLAG},
    "text.normalise_punctuation": {
        "name": "normalise-punctuation",
        "help": "as Moses does",
        **FLAG,
    },
    "clean.max": {
        "name": "clean-max",
        "type": int,
        "metavar": "N",
        "help": "leave out training pairs with more tokens on a side; 0: none",
    },
    "clean.ratio": {
        "name": "clean-ratio",
        "type": float,
        "metavar": "R",
        "help": "leave out training pairs whose lengths have a greater ratio; 0: none",
    },
}


def add_parser(subparsers: Any) -> None:
    """Add the subcommand."""
    from difformer_plugin.data.recipe import available

    parser = add_command(
        subparsers,
        "prepare",
        "make a data-bin from the files of a corpus",
        "Tokenise, clean and split into subwords the files of a corpus, as their "
        "publisher ships them, and binarise the result. An interrupted run resumes.",
        "plain --raw my-text --out out --source-lang de --target-lang en",
        "multi30k --raw raw --out out --download",
        "plain --raw my-text --out out --source-lang de --target-lang en --sentencepiece 8000",
        "plain --show",
    )
    parser.add_argument(
        "recipe",
        metavar="RECIPE",
        help=f"one of {', '.join(available())}; or a .toml file of your own (copy one with --show)",
    )
    parser.add_argument(
        "--raw", type=Path, metavar="FOLDER", help="the publisher's files, packed or not"
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FOLDER",
        help="folder for text, reference and data-bin, from which an interrupted run resumes",
    )
    parser.add_argument("--source-lang", metavar="LANG", help="default: the recipe's")
    parser.add_argument("--target-lang", metavar="LANG", help="default: the recipe's")
    parser.add_argument(
        "--download",
        action="store_true",
        help="first fetch the files that are missing in --raw, if the recipe has their URLs",
    )
    parser.add_argument(
        "--workers", type=int, metavar="N", help="number of processes (default: one per core)"
    )
    parser.add_argument(
        "--text-only", action="store_true", help="stop before the data-bin (no fairseq needed)"
    )
    parser.add_argument(
        "--show", action="store_true", help="print the recipe, with the options below, and exit"
    )
    add_keys(parser)
    parser.set_defaults(run=run, resumes=True)


def add_keys(parser: argparse.ArgumentParser) -> None:
    """Add an option for each common key of a recipe."""
    group = parser.add_argument_group("instead of what the recipe says")
    for key, option in KEYS.items():
        kind = {name: value for name, value in option.items() if name != "name"}
        group.add_argument(f"--{option['name']}", dest=key, **kind)


def run(args: argparse.Namespace) -> int:
    """Prepare the corpus, and print a summary."""
    from difformer_plugin.data import recipe as recipes
    from difformer_plugin.data.download import download
    from difformer_plugin.data.fairseq_preprocess import binarise
    from difformer_plugin.data.preparation import prepare, unexpected_sizes
    from difformer_plugin.data.prepared import check_data_bin
    from difformer_plugin.data.recipe_text import rewritten
    from difformer_plugin.data.resumable_pass import cores

    given = {key: vars(args)[key] for key in KEYS if vars(args)[key] is not None}
    loaded = recipes.load(args.recipe)
    recipe = recipes.changed(loaded, args.recipe, given)
    if args.show:
        text = recipes.find(args.recipe).read_text("utf-8")
        langs = {name: vars(args)[name] or vars(recipe)[name] for name in LANGUAGES}
        print(rewritten(text, loaded, replace(recipe, **langs)), end="")
        return 0
    check(args)
    langs = recipes.languages(recipe, args.source_lang, args.target_lang)
    if args.download:
        download(recipe, args.raw, langs)
    summary = prepare(
        recipe,
        args.raw,
        args.out,
        langs,
        args.workers or cores(),
        None if args.text_only else binarise,
    )
    if not args.text_only:
        check_data_bin(args.out / "data-bin", langs, summary.counts)
    print(render(summary, args.out))
    for note in summary.notes:
        print(f"note: {note}")
    for line in unexpected_sizes(recipe, summary.counts):
        print(f"warning: {line}")
    return 0


def check(args: argparse.Namespace) -> None:
    """Raise a UserError for missing options and impossible values."""
    for name in ("raw", "out"):
        if vars(args)[name] is None:
            raise UserError(f"--{name} is needed: give a folder")
    if args.out.is_file():
        raise UserError(f"--out {args.out} is a file: give a folder")
    if args.workers is not None and args.workers < 1:
        raise UserError(f"--workers must be at least 1, not {args.workers}")


def render(summary: "Summary", out: Path) -> str:
    """Numbers of lines read, kept and removed, as text."""
    lines = ["finished before, nothing to do"] if summary.known else []
    for split, counts in summary.counts.items():
        dropped = {k: v for k, v in counts.items() if k not in ("pairs", "lines")}
        reasons = "".join(f", {number:,} {reason}" for reason, number in dropped.items())
        of = f" of {counts['lines']:,} lines" if "lines" in counts else " drawn from train"
        lines.append(f"{split:<6}{counts['pairs']:>11,} pairs{of}{reasons}")
    made = [name for name in ("text", "reference", "data-bin") if (out / name).exists()]
    lines.append(f"in {out}: {', '.join(made)}")
    return "\n".join(lines)
