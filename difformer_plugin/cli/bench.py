"""`difformer bench`: how fast decoding and training are, each way in turn in one run."""

import warnings

from difformer_plugin.cli import register_quietly
from difformer_plugin.errors import UserError

ARCH = "difformer_iwslt_de_en"
DECODE_HELP = """
Rows translate the same sentences in turn, so that whatever else the machine does falls on all of
them. Nothing is trained: without a checkpoint weights are random, and a model is given the lengths
of the references. Memory is measured in a pass of its own, beyond the weights."""
TRAIN_HELP = """
Rows train on the same batches in turn: forward, backward and Adam's update, by fairseq's own
trainer, from random weights. Nothing is saved."""


def add_parser(subparsers):
    """Add the subcommand, which has two of its own."""
    parser = subparsers.add_parser(
        "bench",
        help="measure decoding or training, each way in turn in one run",
        description="Measure decoding or training.",
    )
    kinds = parser.add_subparsers(required=True, metavar="decode|train")
    decode = kinds.add_parser("decode", help="measure decoding", description=DECODE_HELP)
    _add_common(decode)
    add = decode.add_argument
    add("--path", metavar="FILE", help="a diffusion model's checkpoint")
    add("--transformer", metavar="FILE", help="a checkpoint of fairseq's Transformer")
    add("--cmlm", metavar="FILE", help="a checkpoint of fairseq's CMLM")
    add("--settings", metavar="FILE", help="row `tuned`: what `difformer tune` has found")
    add("--subset", default="test", metavar="SPLIT", help="default: test")
    add("--sentences", type=int, default=10, metavar="N", help="drawn from it; default: 10")
    add("--steps", type=int, nargs="+", metavar="K", help="one or several; default: 5")
    add(
        "--beams",
        nargs="+",
        metavar="B",
        help="lengths x noises, as 7x3; 10 is 5x2, 21 is 7x3, or noises alone where lengths grow; "
        "default: 1 21",
    )
    add(
        "--batch-size",
        type=int,
        nargs="+",
        metavar="N",
        help="sentences at a time, one or several; default: all sentences of the run",
    )
    add(
        "--scaling",
        action="store_true",
        help="print how the engine's cost grows with K, candidates, batch and length instead, one "
        "varied at a time from the first value of each and the largest batch; default: K = 1 5 10 "
        "20, b = 1 10 21, batches of 1, 5 and 10",
    )
    decode.set_defaults(run=run_decode)
    train = kinds.add_parser("train", help="measure training", description=TRAIN_HELP)
    _add_common(train)
    train.add_argument("--max-tokens", type=int, default=2048, help="of a batch; default: 2048")
    train.add_argument(
        "--updates", type=int, default=3, metavar="N", help="in a repetition; default: 3"
    )
    train.set_defaults(run=run_train)


def _add_common(parser):
    add = parser.add_argument
    add("data", metavar="DATA-BIN", help="from fairseq-preprocess")
    add("--arch", default=ARCH, help=f"size of a model without checkpoint; default: {ARCH}")
    add(
        "--model-options",
        metavar="OPTIONS",
        help="of fairseq-train, for a model without checkpoint, as --model-options='--process "
        "uniform --objective d3pm'",
    )
    add("--rows", nargs="+", metavar="NAME", help="which rows; default: all")
    add("--repetitions", type=int, default=2, metavar="N", help="default: 2")
    add("--threads", type=int, metavar="N", help="of the CPU; default: torch's")
    add("--seed", type=int, default=1, help="of weights, noise and choice; default: 1")
    add("--cpu", action="store_true", help="even if there is a GPU")
    add("--json", metavar="FILE", help="also write all figures to a file; -: print them alone")


def run_decode(args):
    """Print the decoding table, or how its cost grows."""
    at_least_one(args, "sentences", "repetitions", "threads", "steps", "batch_size")
    _register()
    from difformer_plugin.bench import runs

    return runs.scaling(args) if args.scaling else runs.decode(args)


def run_train(args):
    """Print the training table."""
    at_least_one(args, "max_tokens", "updates", "repetitions", "threads")
    _register()
    from difformer_plugin.bench import runs

    return runs.train(args)


def _register():
    register_quietly()
    warnings.simplefilter("ignore")  # of torch and hydra, about fairseq's trainer and options


def at_least_one(args, *names):
    """A UserError if one of these options, or of its values, is below 1."""
    for name in names:
        value = getattr(args, name)
        values = value if isinstance(value, list) else [value]
        if any(v is not None and v < 1 for v in values):
            given = " ".join(map(str, values))
            raise UserError(f"--{name.replace('_', '-')} must be at least 1, not {given}")
