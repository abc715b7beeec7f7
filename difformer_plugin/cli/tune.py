"""`difformer tune`: the fastest settings of decoding within a given loss of BLEU.

With --fit-rerank: the weights of rerankers that choose best among candidates.
"""

import math
from argparse import BooleanOptionalAction, Namespace
from pathlib import Path
from typing import Any

from difformer_plugin.cli import (
    add_command,
    add_json,
    add_post_process,
    add_split,
    json_targets,
    print_result,
    register_quietly,
)
from difformer_plugin.errors import UserError
from difformer_plugin.options import flag

# Options of the search for speed, which --fit-rerank does not read.
SEARCH_DEFAULTS: dict[str, Any] = {
    "max_loss": 0.2,
    "max_trials": 80,
    "minutes": None,
    "repeats": 3,
    "precisions": None,
    "plot": None,
}


def add_parser(subparsers: Any) -> None:
    """Add the subcommand."""
    parser = add_command(
        subparsers,
        "tune",
        "find the fastest settings of decoding that keep the BLEU",
        "Decode a validation set with different settings, starting from slow but good "
        "reference settings, and write the fastest that lose at most --max-loss BLEU to a file "
        "for --decoding-settings. An interrupted search resumes when the same command is given "
        "again. With --fit-rerank it draws the candidates of the reference settings once, and "
        "writes these settings with the weights of rerankers that choose best among them.",
        "data-bin --path checkpoints/checkpoint_best.pt --out fast.toml",
        "data-bin --path averaged.pt --fit-rerank mbr,repetition --out best.toml",
    )
    add = parser.add_argument
    add("data", metavar="DATA-BIN", help="from fairseq-preprocess")
    add("--path", required=True, metavar="FILES", help="checkpoint; with --ppl-mbr FILE:TEACHER")
    add("--out", required=True, type=Path, metavar="FILE", help="write the settings to it, as TOML")
    add(
        "--fit-rerank",
        metavar="NAMES",
        help="fit the weights of these rerankers, as mbr,length,likelihood, instead of searching",
    )
    add_split(add, "valid", "gen_subset")
    add(
        "--max-loss",
        type=float,
        default=SEARCH_DEFAULTS["max_loss"],
        metavar="BLEU",
        help="BLEU that may be lost against the reference settings; default: 0.2",
    )
    add("--sentences", type=int, metavar="N", help="use only N, evenly spread; default: all")
    add(
        "--batch-size",
        type=int,
        default=50,
        metavar="N",
        help="sentences per batch, as in later use; default: 50",
    )
    add(
        "--precisions",
        nargs="+",
        metavar="NAME",
        help="precisions of the denoiser: fp32, bf16, fp16, int8; default: those no slower "
        "than fp32 on this machine",
    )
    add(
        "--max-trials",
        type=int,
        default=SEARCH_DEFAULTS["max_trials"],
        metavar="N",
        help="maximum number of measurements; default: 80",
    )
    add("--minutes", type=float, metavar="M", help="maximum minutes of decoding in the search")
    add(
        "--repeats",
        type=int,
        default=SEARCH_DEFAULTS["repeats"],
        metavar="N",
        help="repetitions of the final timing; default: 3",
    )
    add("--seed", type=int, default=1, help="seed of the noise; default: 1")
    add_post_process(add)
    add("--plot", type=Path, metavar="FILE", help="also plot BLEU by speed, to .png, .svg or .pdf")
    add_json(add, took_a_file=True)
    add("--cpu", action="store_true", help="use the CPU even if there is a GPU")
    group = parser.add_argument_group("reference settings, which the search does not exceed")
    add = group.add_argument
    add("--decoding-steps", type=int, metavar="K", help="default: 20")
    add("--decoding-early-stopping", type=int, metavar="E", help="default: 0")
    add(
        "--length-beam-size",
        type=int,
        metavar="B1",
        help="default: 7, or 1 if lengths are not predicted",
    )
    add(
        "--noise-beam-size",
        type=int,
        metavar="B2",
        help="default: 3, or 21 if lengths are not predicted",
    )
    add("--bleu-mbr", action=BooleanOptionalAction, help="default: yes, without --ppl-mbr")
    add("--ppl-mbr", action="store_true", default=None, help="choose candidates by a teacher")
    add("--decoding-precision", metavar="NAME", help="default: fp32")
    add("--decoding-settings", metavar="FILE", help="read these and other options from a file")
    parser.set_defaults(run=run, resumes=True)


def run(args: Namespace) -> int:
    """Search, write the settings, and print the Pareto front."""
    check(args)
    register_quietly()
    if args.fit_rerank is not None:
        from difformer_plugin.tuning.report import render_weights
        from difformer_plugin.tuning.rerank import tune_rerank

        weights = tune_rerank(args)
        print_result(args, weights, lambda: render_weights(args, weights))
        return 0
    from difformer_plugin.tuning.report import render
    from difformer_plugin.tuning.tune import tune

    result = tune(args)
    print_result(args, result, lambda: render(args, result))
    return 0


def check(args: Namespace) -> None:
    """Raise a UserError for values out of range and for names of files that cannot be written."""
    if args.fit_rerank is not None:
        check_fit(args)
    for name in ("sentences", "batch_size", "max_trials", "repeats"):
        value = vars(args)[name]
        if value is not None and value < 1:
            raise UserError(f"{flag(name)} must be at least 1, not {value}")
    if not 0 <= args.max_loss < math.inf:
        raise UserError(f"--max-loss must be at least 0, not {args.max_loss:g}")
    if args.minutes is not None and not args.minutes > 0:
        raise UserError(f"--minutes must be above 0, not {args.minutes:g}")
    if not 0 <= args.seed < 2**32:
        raise UserError(f"--seed must be from 0 to 2**32 - 1, not {args.seed}")
    if args.plot:
        from difformer_plugin.evaluation.plots import check_plot_path

        check_plot_path(args.plot)
    json_targets(args)
    if args.out.is_dir():
        raise UserError(f"--out {args.out} is a folder: name a file")


def check_fit(args: Namespace) -> None:
    """Raise a UserError for options that do nothing beside --fit-rerank, or contradict it."""
    for name, default in SEARCH_DEFAULTS.items():
        if vars(args)[name] != default:
            raise UserError(
                f"{flag(name)} belongs to the search for speed: leave it out with --fit-rerank"
            )
    for name in ("bleu_mbr", "ppl_mbr"):
        if vars(args)[name]:
            raise UserError(f"--fit-rerank chooses instead of {flag(name)}: leave that out")
