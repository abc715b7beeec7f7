"""`difformer bench`: measure the speed and memory of decoding or training."""

import argparse
import json
import warnings
from collections.abc import Callable
from typing import Any

from difformer_plugin.cli import (
    add_command,
    add_json,
    add_split,
    json_targets,
    register_quietly,
)
from difformer_plugin.errors import UserError

ARCH = "difformer_iwslt_de_en"
DECODE_HELP = """
All rows translate the same sentences in turn, so that other load on the machine affects them alike.
Nothing is trained: without a checkpoint, a model has random weights and is given the lengths of the
references. Memory is measured in a separate pass and does not include the weights."""
TRAIN_HELP = """
All rows train on the same batches in turn, from random weights: forward and backward pass and
Adam's update, by fairseq's own trainer. Nothing is saved."""


def add_parser(subparsers: Any) -> None:
    """Add the subcommand, which has two of its own."""
    parser = add_command(
        subparsers,
        "bench",
        "measure the speed and memory of decoding or training",
        "Measure the speed and memory of decoding or training on this machine, for a model of "
        "yours or for one with random weights.",
        "decode data-bin --steps 5 20 --beams 1 21",
        "train data-bin --max-tokens 4096",
    )
    kinds = parser.add_subparsers(required=True, metavar="decode|train")
    decode = add_command(
        kinds,
        "decode",
        "measure decoding",
        DECODE_HELP,
        "data-bin --steps 5 20 --beams 1 21",
        "data-bin --path checkpoints/checkpoint_best.pt --rows plain engine",
        within="bench",
    )
    _add_common(decode)
    add = decode.add_argument
    add("--path", metavar="FILE", help="a diffusion model's checkpoint")
    add("--transformer", metavar="FILE", help="a checkpoint of fairseq's Transformer")
    add("--cmlm", metavar="FILE", help="a checkpoint of fairseq's CMLM")
    add("--settings", metavar="FILE", help="for the row `tuned`: a file of `difformer tune`")
    add_split(add, "test", "subset")
    add("--sentences", type=int, default=10, metavar="N", help="drawn from it; default: 10")
    add("--steps", type=int, nargs="+", metavar="K", help="one or more values; default: 5")
    add(
        "--beams",
        nargs="+",
        metavar="B",
        help="lengths x noises, such as 7x3; 10 means 5x2 and 21 means 7x3, or so many noises if "
        "the model predicts no lengths; default: 1 21",
    )
    add(
        "--batch-size",
        type=int,
        nargs="+",
        metavar="N",
        help="sentences in a batch, one or more values; default: all sentences of the run",
    )
    add(
        "--against",
        action="append",
        metavar="NAME=COMMAND",
        help="instead, time a command, which may belong to another environment, beside "
        "fairseq-generate with --path; it reads the data-bin {data} and prints what "
        "fairseq-generate prints; {batch_size}, {steps}, {lengths}, {noises} and {seed} are "
        "replaced; may be repeated",
    )
    add(
        "--scaling",
        action="store_true",
        help="instead, print how the engine's cost grows with K, candidates, batch size and "
        "length; each is varied alone, starting from the first K, the first B and the largest "
        "batch; default: K = 1 5 10 20, b = 1 10 21, batches of 1, 5 and 10",
    )
    decode.set_defaults(run=run_decode)
    train = add_command(
        kinds,
        "train",
        "measure training",
        TRAIN_HELP,
        "data-bin --max-tokens 4096",
        "data-bin --arch difformer_tiny --rows plain engine",
        within="bench",
    )
    _add_common(train)
    train.add_argument("--max-tokens", type=int, default=2048, help="in a batch; default: 2048")
    train.add_argument(
        "--updates", type=int, default=3, metavar="N", help="in a repetition; default: 3"
    )
    train.set_defaults(run=run_train)


def _add_common(parser):
    add = parser.add_argument
    add("data", metavar="DATA-BIN", help="from fairseq-preprocess")
    add("--arch", default=ARCH, help=f"size of a model without a checkpoint; default: {ARCH}")
    add(
        "--model-options",
        metavar="OPTIONS",
        help="options of fairseq-train for a model without a checkpoint, such as "
        "--model-options='--process uniform --objective d3pm'",
    )
    add("--rows", nargs="+", metavar="NAME", help="rows to measure; default: all")
    add("--repetitions", type=int, default=2, metavar="N", help="default: 2")
    add("--threads", type=int, metavar="N", help="of the CPU; default: torch's")
    add("--seed", type=int, default=1, help="of weights, noise and sentences; default: 1")
    add("--cpu", action="store_true", help="use the CPU even if there is a GPU")
    add_json(add, took_a_file=True)


def run_decode(args: argparse.Namespace) -> int:
    """Print the decoding table, or how its cost grows."""
    at_least_one(args, "sentences", "repetitions", "threads", "steps", "batch_size")
    _register()
    from difformer_plugin.bench import runs

    if args.against:
        return _report(args, runs.decode_against)
    return _report(args, runs.decode_scaling if args.scaling else runs.decode)


def run_train(args: argparse.Namespace) -> int:
    """Print the training table."""
    at_least_one(args, "max_tokens", "updates", "repetitions", "threads")
    _register()
    from difformer_plugin.bench import runs

    return _report(args, runs.train_rows)


def _report(args, measure: Callable[[argparse.Namespace, Callable[[str], None]], dict]) -> int:
    """Print the tables part by part, or the figures; write these where --json-out says."""
    from tqdm import tqdm

    from difformer_plugin.storage.files import atomic_text

    parts = []
    prints, file = json_targets(args)

    def show(text: str) -> None:
        if not prints:
            tqdm.write(f"\n{text}" if parts else text)
            parts.append(text)

    figures = measure(args, show)
    if prints:
        print(json.dumps(figures, indent=1))
    if file:
        with atomic_text(file) as handle:
            json.dump(figures, handle, indent=1)
    return 0


def _register():
    register_quietly()
    warnings.simplefilter("ignore")  # torch and hydra warn about fairseq's trainer and options


def at_least_one(args: argparse.Namespace, *names: str) -> None:
    """Raise a UserError if one of these options has a value below 1."""
    for name in names:
        value = getattr(args, name)
        values = value if isinstance(value, list) else [value]
        if any(v is not None and v < 1 for v in values):
            given = " ".join(map(str, values))
            raise UserError(f"--{name.replace('_', '-')} must be at least 1, not {given}")
