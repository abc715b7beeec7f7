"""`difformer factor`: the rescaling factor for a threshold of the degeneration score (App. D)."""

import argparse
import json
from functools import cache
from pathlib import Path

from difformer_plugin.errors import UserError

MAX_DGS, LATENT_DIM, DIFFUSION_STEPS, SAMPLES = 0.15, 128, 2000, 1000
SAMPLING = {"samples", "seed"}
NOT_WITH_CHECKPOINT = {
    *("vocab_size", "latent_dim", "sigma", "method", "from_data", "target_lang"),
}
NOT_WITH_TABLE = SAMPLING | {
    *("vocab_size", "from_data", "target_lang", "from_checkpoint", "noise_schedule"),
    *("max_dgs", "rescaling_factor", "method", "plot"),
}


def add_parser(subparsers):
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "factor",
        help="find the rescaling factor F for a threshold of the degeneration score",
        description="Print the least rescaling factor F whose degeneration score (DGS) is at most "
        "--max-dgs, and that score. Normal embeddings take a blink; a checkpoint's are sampled.",
    )
    add = parser.add_argument
    add("--noise-schedule", metavar="NAME", help="linear, cosine, sqrt, edm or cdcd; default: sqrt")
    add("--vocab-size", type=int, metavar="V", help="number of embeddings")
    add("--latent-dim", type=int, metavar="D", help=f"their dimension; default: {LATENT_DIM}")
    add("--sigma", type=float, metavar="S", help="sigma_e, their deviation; default: 1")
    add("--max-dgs", type=float, metavar="X", help=f"DGS_MAX; default: {MAX_DGS}")
    add(
        "--rescaling-factor",
        type=float,
        metavar="F",
        help="print the score of this factor, and search for none",
    )
    add(
        "--vp-rf",
        action=argparse.BooleanOptionalAction,
        help="apply F in its variance-preserving form (Eq. 8)",
    )
    add(
        "--search-step",
        type=float,
        default=0.5,
        metavar="STEP",
        help="look at F = 1, 1 + STEP, 1 + 2 STEP, ...; 0: at any number, by bisection; "
        "default: 0.5, as in the paper",
    )
    add(
        "--classifier",
        choices=("definition1", "nearest"),
        default="definition1",
        help="Definition 1 taken literally (default), or the plain nearest neighbour",
    )
    add("--diffusion-steps", type=int, metavar="T", help=f"of training; default: {DIFFUSION_STEPS}")
    add(
        "--timesteps",
        type=int,
        metavar="N",
        help="the score is a mean over every N-th of the T time steps, from the first one on; "
        "default: 32 of 2000, with which the paper's tables are met",
    )
    add(
        "--method",
        choices=("exact", "monte-carlo"),
        help="exact (default), or sampled over the vocabulary as in Algorithm 2",
    )
    add(
        "--samples",
        type=int,
        metavar="N",
        help=f"draws for each time step where it is sampled; default: {SAMPLES}",
    )
    add("--seed", type=int, metavar="N", help="of these draws; default: 1")
    add("--from-data", type=Path, metavar="DATA-BIN", help="take V from its target dictionary")
    add("--target-lang", metavar="LANG", help="which dictionary that is, if names do not say")
    add(
        "--from-checkpoint",
        type=Path,
        metavar="FILE",
        help="the embeddings of a trained model, by sampling; its schedule unless told otherwise",
    )
    add("--table", action="store_true", help="all of Table 19, and where it is not the paper's")
    add(
        "--plot",
        type=Path,
        metavar="FILE",
        help="also plot DGS_t of the schedules (Fig. 2b), and the schedule rescaled (Fig. 2c)",
    )
    add("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(args):
    """Print a factor, or the table."""
    from difformer_plugin.diffusion.gaussian.rescaling import NoiseSeries, search_factor
    from difformer_plugin.tuning import factor_subjects as subjects
    from difformer_plugin.tuning import factor_table

    check(args)
    if args.table:
        return factor_table.run(args)
    subject = subjects.from_arguments(args)
    series = NoiseSeries(
        subject.default(args.noise_schedule, "noise_schedule"),
        subject.default(args.diffusion_steps, "diffusion_steps"),
        subject.default(args.vp_rf, "vp_rf"),
        args.timesteps,
    )
    max_dgs = MAX_DGS if args.max_dgs is None else args.max_dgs

    @cache
    def score(factor):
        return subject.score(series, factor)

    factor, found = args.rescaling_factor, None
    if factor is None:
        factor, found = search_factor(score, max_dgs, args.search_step)
    result = {
        "rescaling_factor": factor,
        "dgs": score(factor) if found is None else found,
        "dgs_unscaled": score(1.0),
        "max_dgs": None if args.rescaling_factor else max_dgs,
        "noise_schedule": series.schedule,
        "vp_rf": series.vp_rf,
        "diffusion_steps": series.diffusion_steps,
        "every_nth_timestep": int(series.timesteps[1]) if len(series.timesteps) > 1 else 1,
        "classifier": args.classifier,
        **subject.describe(series, factor),
    }
    print(json.dumps(result, indent=1) if args.json else render(result, args.plot))
    if args.plot:
        plot(args.plot, subject, series, factor)
    return 0


def check(args):
    """Raise a UserError for options that say nothing together."""
    given = {name for name, value in vars(args).items() if value is not None and value is not False}
    sources = [name for name in ("vocab_size", "from_data", "from_checkpoint") if name in given]
    if args.vocab_size is not None and args.vocab_size < 1:
        raise UserError(f"--vocab-size must be at least 1, not {args.vocab_size}")
    if args.samples is not None and args.samples < 1:
        raise UserError(f"--samples must be at least 1, not {args.samples}")
    if args.seed is not None and not 0 <= args.seed < 2**63:
        raise UserError(f"--seed must lie between 0 and 2^63 - 1, not {args.seed}")
    if "rescaling_factor" in given and "max_dgs" in given:
        raise UserError("--rescaling-factor asks for no search: leave --max-dgs out")
    if args.table:
        refuse(given & NOT_WITH_TABLE, "--table has its own rows")
        return
    if len(sources) != 1:
        raise UserError(
            "give one of --vocab-size, --from-data and --from-checkpoint"
            + (f", not {options(sources)}" if sources else "")
        )
    if args.from_checkpoint:
        refuse(given & NOT_WITH_CHECKPOINT, "--from-checkpoint brings its own")
    elif args.method != "monte-carlo":
        refuse(given & SAMPLING, "nothing is sampled without --method monte-carlo")
    if not args.from_data:
        refuse(given & {"target_lang"}, "there is no dictionary to choose without --from-data")
    if args.plot:
        from difformer_plugin.evaluation.plots import check_plot_path

        check_plot_path(args.plot)


def refuse(unused, why):
    """A UserError if there is any option in this set."""
    if unused:
        raise UserError(f"{why}: leave {options(sorted(unused))} out")


def options(names):
    """Names of arguments as they are typed."""
    return " and ".join(f"--{name.replace('_', '-')}" for name in names)


def render(result, plotted):
    """The result as text."""
    error = result.get("standard_error")
    lines = [
        f"rescaling factor    {result['rescaling_factor']:.10g}",
        f"degeneration score  {result['dgs']:.4f}"
        + (f" +- {error:.4f} (standard error)" if error else "")
        + (f", at most {result['max_dgs']:g}" if result["max_dgs"] else "")
        + f"; {result['dgs_unscaled']:.4f} at F = 1",
    ]
    if bound := result.get("error_bound"):
        lines.append(f"error               below {bound:.4f} with 99 % confidence, for a given F")
    lines.append(
        f"of                  {result['vocab_size']} embeddings of dimension "
        f"{result['latent_dim']}, sigma_e = {result['sigma']:.4g}, schedule "
        f"{result['noise_schedule']}{' (variance preserving)' if result['vp_rf'] else ''}, one in "
        f"{result['every_nth_timestep']} of {result['diffusion_steps']} time steps from 0 on, "
        f"classifier {result['classifier']}"
    )
    if "factor_in_training" in result:
        lines.append(
            f"in training         F = {result['factor_in_training']:.4g}, score "
            f"{result['dgs_in_training']:.4f}"
        )
    if "dgs_if_normal" in result:
        lines.append(
            f"were they normal    {result['dgs_if_normal']:.4f} with their sigma_e, "
            f"{result['dgs_if_standard']:.4f} with 1"
        )
    if paper := published(result):
        lines.append(f"the paper           {paper:.1f} (Table 19)")
    if plotted:
        lines.append(f"plot                {plotted}")
    return "\n".join(lines)


def published(result):
    """The paper's F for the same question, or None."""
    from difformer_plugin.diffusion.gaussian.published import DGS_MAX, LATENT_DIM, TABLE_19

    row = TABLE_19.get((result["noise_schedule"], result["vocab_size"]))
    setting = ("latent_dim", "sigma", "vp_rf", "classifier")
    same = [result[name] for name in setting] == [LATENT_DIM, 1.0, False, "definition1"]
    return dict(zip(DGS_MAX, row)).get(result["max_dgs"]) if row and same else None


def plot(path, subject, series, factor):
    """Fig. 2b and Fig. 2c for this subject and schedule."""
    from dataclasses import replace

    import numpy as np

    from difformer_plugin.diffusion.gaussian.published import TABLE_2
    from difformer_plugin.evaluation.plots import save_panels

    t = series.timesteps / series.diffusion_steps
    names = dict.fromkeys([*TABLE_2, series.schedule])
    scores = {name: (t, subject.scores(replace(series, schedule=name), 1.0)) for name in names}
    scores[f"{series.schedule}, F = {factor:.3g}"] = t, subject.scores(series, factor)

    def signal(f):
        alpha_bar, beta_bar = series.coefficients(f)
        return alpha_bar / (alpha_bar + beta_bar)

    factors = sorted({1.0, 2.0, 4.0, 8.0, factor})
    save_panels(
        path,
        [
            {
                "title": "degeneration score by time",
                "x_label": "t / T",
                "y_label": "DGS_t",
                "lines": scores,
            },
            {
                "title": f"{series.schedule}, rescaled",
                "x_label": "t / T",
                "y_label": "share of the signal in the variance",
                "lines": {f"F = {f:.3g}": (t, np.asarray(signal(f))) for f in factors},
            },
        ],
    )
