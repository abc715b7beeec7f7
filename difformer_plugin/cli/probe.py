"""`difformer probe`: BLEU from pure noise by the time that the denoiser is told (Fig. 2a)."""

import argparse
from pathlib import Path
from typing import Any

from difformer_plugin.cli import (
    add_command,
    add_json,
    add_post_process,
    add_split,
    print_result,
    register_quietly,
)
from difformer_plugin.errors import UserError


def add_parser(subparsers: Any) -> None:
    """Add the subcommand."""
    parser = add_command(
        subparsers,
        "probe",
        "measure how far a model has degenerated",
        "Feed pure noise with each time step to a trained model and print the BLEU of "
        "its predictions. A degenerated model follows the noise, and its BLEU is low.",
        "data-bin --path checkpoints/checkpoint_best.pt --plot probe.png",
    )
    add = parser.add_argument
    add("data", metavar="DATA-BIN", help="from fairseq-preprocess")
    add("--path", required=True, metavar="FILES", help="checkpoint, or several joined with ':'")
    add_split(add, "valid", "gen_subset")
    add("--points", type=int, default=21, help="number of time steps, evenly spaced; default: 21")
    add("--batch-size", type=int, default=100, help="sentences per batch; default: 100")
    add("--seed", type=int, default=1, help="seed of the noise; default: 1")
    add_post_process(add)
    add("--plot", type=Path, metavar="FILE", help="also plot the table, to .png, .svg or .pdf")
    add_json(add)
    add("--cpu", action="store_true", help="use the CPU even if there is a GPU")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print BLEU by time, a column for each checkpoint."""
    check(args)
    register_quietly()
    from tqdm import tqdm

    from difformer_plugin.data.word_marks import check_mark
    from difformer_plugin.tuning import probe

    check_mark(args.post_process)
    times = [i / args.points for i in range(args.points)]
    curves, signature = {}, ""
    for path in dict.fromkeys(args.path.split(":")):
        model, task, batches = probe.load(args, path)

        def progress(items, path=path):
            return tqdm(items, path, leave=False, disable=None)

        curves[path], signature = probe.bleu_by_time(
            model, task.target_dictionary, batches, times, args.seed, args.post_process, progress
        )
    figures = {"signature": signature, "time": times, "bleu": curves}
    print_result(args, figures, lambda: probe.render(times, curves, signature))
    if args.plot:
        probe.plot(args.plot, times, curves)
    return 0


def check(args: argparse.Namespace) -> None:
    """Raise a UserError for values out of range."""
    if args.points < 2:
        raise UserError(f"--points must be at least 2, not {args.points}")
    if args.batch_size < 1:
        raise UserError(f"--batch-size must be at least 1, not {args.batch_size}")
    if args.plot:
        from difformer_plugin.evaluation.plots import check_plot_path

        check_plot_path(args.plot)
