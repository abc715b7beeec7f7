"""`difformer export`: a folder with all that a trained model needs."""

import argparse
from pathlib import Path
from typing import Any

from difformer_plugin.cli import add_command, model_arguments, register_quietly
from difformer_plugin.errors import UserError


def add_parser(subparsers: Any) -> None:
    """Add the subcommand."""
    parser = add_command(
        subparsers,
        "export",
        "write a trained model to a folder that can be passed on",
        "Write weights (safetensors, without the optimizer's state), dictionaries, subwords, "
        "pipeline.json and a model card to a folder. `difformer translate`, `from_pretrained` and "
        "fairseq-generate read the weights, and translate as with the checkpoint.",
        "averaged.pt --out de-en --decoding-settings tuned.toml --scores scores.json",
    )
    model_arguments.add_model(parser)
    add = parser.add_argument
    add("--out", required=True, type=Path, metavar="FOLDER", help="a new folder")
    add(
        "--decoding-settings",
        type=Path,
        metavar="FILE",
        help="keep the options in this file as defaults of translate and from_pretrained",
    )
    add(
        "--scores",
        type=Path,
        metavar="FILE",
        help="output of `difformer evaluate --json`, for the model card",
    )
    model_arguments.add_text(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Export the model, and print the names of the files."""
    if args.out.is_file():
        raise UserError(f"--out {args.out} is a file: give a folder")
    register_quietly()
    from difformer_plugin.translation.export import export
    from difformer_plugin.translation.settings import Settings, TextOptions

    settings = Settings(
        args.model,
        args.data,
        TextOptions(**model_arguments.text_options(args)),
        decoding_settings=args.decoding_settings,
        use_ema=args.use_ema,
    )
    names = export(settings, args.out, args.scores)
    print(f"{args.out}: {', '.join(names)}")
    print("README.md is the model card: its licences are left for you to fill in")
    return 0
