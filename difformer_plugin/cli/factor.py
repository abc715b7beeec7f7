"""`difformer factor`: the rescaling factor for a threshold of the degeneration score (App. D)."""

import argparse
from pathlib import Path
from typing import Any

from difformer_plugin.cli import add_command, add_json, print_result, register_quietly
from difformer_plugin.cli.factor_arguments import check, given, scored_embeddings
from difformer_plugin.errors import translated
from difformer_plugin.tuning import defaults


def add_parser(subparsers: Any) -> None:
    """Add the subcommand."""
    parser = add_command(
        subparsers,
        "factor",
        "find the rescaling factor F of the noise",
        "Print the smallest rescaling factor F whose degeneration score (DGS) is at "
        "most --max-dgs, and that score. For normally distributed embeddings it is computed "
        "exactly and at once; for those of a checkpoint it is sampled.",
        "--from-data data-bin --latent-dim 128",
        "--vocab-size 10000 --max-dgs 0.15 --plot factor.png",
        "--from-checkpoint checkpoints/checkpoint_best.pt --rescaling-factor 4",
    )
    add = parser.add_argument
    add(
        "--noise-schedule",
        metavar="NAME",
        help="linear, cosine, sqrt, edm, cdcd or positional; default: sqrt",
    )
    add(
        "--target-length",
        type=int,
        metavar="M",
        help="with a position-dependent schedule, the tokens of the target whose positions the "
        f"score is averaged over; default: {defaults.TARGET_LENGTH}",
    )
    add("--vocab-size", type=int, metavar="V", help="number of embeddings")
    add(
        "--latent-dim",
        type=int,
        metavar="D",
        help=f"dimension of the embeddings; default: {defaults.LATENT_DIM}",
    )
    add("--sigma", type=float, metavar="S", help="their standard deviation; default: 1")
    add("--max-dgs", type=float, metavar="X", help=f"threshold; default: {defaults.MAX_DGS}")
    add(
        "--rescaling-factor",
        type=float,
        metavar="F",
        help="print the score of this factor instead of searching for one",
    )
    add(
        "--vp-rf",
        action=argparse.BooleanOptionalAction,
        help="apply F in its variance-preserving form (Eq. 8)",
    )
    add(
        "--search-step",
        type=float,
        default=defaults.SEARCH_STEP,
        metavar="STEP",
        help="consider F = 1, 1 + STEP, 1 + 2 STEP, ...; 0: any number, by root finding; default: "
        f"{defaults.SEARCH_STEP}, as in the paper",
    )
    add(
        "--classifier",
        choices=("definition1", "nearest"),
        default="definition1",
        help="Definition 1 taken literally (default), or the plain nearest neighbour",
    )
    add(
        "--diffusion-steps",
        type=int,
        metavar="T",
        help=f"diffusion steps in training; default: {defaults.DIFFUSION_STEPS}",
    )
    add(
        "--timesteps",
        type=int,
        metavar="N",
        help="average the score over every N-th of the T time steps, starting with the first; "
        "default: 32 if T is 2000, which reproduces the paper's tables",
    )
    add(
        "--method",
        choices=("exact", "monte-carlo"),
        help="exact (default), or sampled over the vocabulary (Algorithm 2)",
    )
    add(
        "--samples",
        type=int,
        metavar="N",
        help=f"draws for each time step when sampling; default: {defaults.SAMPLES}",
    )
    add("--seed", type=int, metavar="N", help=f"seed for sampling; default: {defaults.SEED}")
    add("--from-data", type=Path, metavar="DATA-BIN", help="take V from its target dictionary")
    add("--target-lang", metavar="LANG", help="target language, if the file names do not tell it")
    add(
        "--from-checkpoint",
        type=Path,
        metavar="FILE",
        help="score the embeddings of a trained model, with its own noise schedule by default",
    )
    add("--table", action="store_true", help="print Table 19 and mark where the paper differs")
    add(
        "--plot",
        type=Path,
        metavar="FILE",
        help="also plot DGS_t of the schedules (Fig. 2b) and the rescaled schedule (Fig. 2c)",
    )
    add_json(add)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print a factor or a score, or the table."""
    check(args)
    return print_table(args) if args.table else print_factor(args)


@translated(stride="--timesteps")
def print_table(args: argparse.Namespace) -> int:
    """Print Table 19; as JSON, also Tables 2, 14 and 17."""
    from difformer_plugin.tuning.factor_table import factor_table, render

    names = ("latent_dim", "sigma", "diffusion_steps", "vp_rf")
    result = factor_table(
        **given(args, *names),
        stride=args.timesteps,
        classifier=args.classifier,
        search_step=args.search_step,
    )
    print_result(args, result, lambda: render(result))
    return 0


@translated(stride="--timesteps", target_length="--target-length")
def print_factor(args: argparse.Namespace) -> int:
    """Print the factor that is searched for, or the score of the given one, and plot it."""
    from difformer_plugin.tuning import factor, factor_report

    if args.from_checkpoint:
        register_quietly()
    embeddings = scored_embeddings(args)
    names = ("noise_schedule", "diffusion_steps", "vp_rf")
    series = embeddings.noise_series(
        **given(args, *names), stride=args.timesteps, target_length=args.target_length
    )
    if args.rescaling_factor is None:
        max_dgs = given(args, "max_dgs")
        result = factor.find_factor(embeddings, series, **max_dgs, search_step=args.search_step)
    else:
        result = factor.score_factor(embeddings, series, args.rescaling_factor)
    print_result(args, result, lambda: factor_report.render(result, args.plot))
    if args.plot:
        factor_report.plot(args.plot, embeddings, series, result["rescaling_factor"])
    return 0
