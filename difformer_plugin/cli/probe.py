"""`difformer probe`: BLEU from pure noise by the time that the denoiser is told (Fig. 2a)."""

import json
from pathlib import Path

from difformer_plugin.cli import add_post_process, register_quietly
from difformer_plugin.errors import UserError


def add_parser(subparsers):
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "probe",
        help="BLEU by time step from pure noise: how far a model has degenerated",
        description="Feed pure noise with each time step to a trained model and print the BLEU of "
        "its predictions. Where it has degenerated it follows the noise and the BLEU is low.",
    )
    add = parser.add_argument
    add("data", metavar="DATA-BIN", help="from fairseq-preprocess")
    add("--path", required=True, metavar="FILES", help="checkpoint, or several joined with ':'")
    add("--gen-subset", default="valid", metavar="SPLIT", help="default: valid")
    add("--points", type=int, default=21, help="number of time steps, evenly spaced; default: 21")
    add("--batch-size", type=int, default=100, help="sentences at a time; default: 100")
    add("--seed", type=int, default=1, help="of the noise; default: 1")
    add_post_process(add)
    add("--plot", type=Path, metavar="FILE", help="also plot it, to .png, .svg or .pdf")
    add("--json", action="store_true", help="print one JSON object")
    add("--cpu", action="store_true", help="even if there is a GPU")
    parser.set_defaults(run=run)


def run(args):
    """Print BLEU by time, a column for each checkpoint."""
    if args.points < 2:
        raise UserError(f"--points must be at least 2, not {args.points}")
    if args.batch_size < 1:
        raise UserError(f"--batch-size must be at least 1, not {args.batch_size}")
    if args.plot:
        from difformer_plugin.evaluation.plots import check_plot_path

        check_plot_path(args.plot)
    register_quietly()
    from tqdm import tqdm

    from difformer_plugin.data.data_bin_pairs import check_mark
    from difformer_plugin.decoding.probe import bleu_by_time

    check_mark(args.post_process)

    times = [i / args.points for i in range(args.points)]
    curves, signature = {}, None
    for path in dict.fromkeys(args.path.split(":")):
        model, task, batches = load(args, path)

        def progress(items, path=path):
            return tqdm(items, path, leave=False, disable=None)

        curves[path], signature = bleu_by_time(
            model, task.target_dictionary, batches, times, args.seed, args.post_process, progress
        )
    if args.json:
        print(json.dumps({"signature": signature, "time": times, "bleu": curves}, indent=1))
    else:
        print(render(times, curves, signature))
    if args.plot:
        plot(args.plot, times, curves)
    return 0


def load(args, path):
    """A checkpoint's model and task, and the batches of the split on the model's device."""
    import torch
    from fairseq import checkpoint_utils

    from difformer_plugin.data.batches import batches
    from difformer_plugin.families.embeddings.model import Difformer

    (model,), _, task = checkpoint_utils.load_model_ensemble_and_task(
        [path], arg_overrides={"data": args.data}
    )
    if not isinstance(model, Difformer):
        raise UserError(
            f"{path} is a {type(model).__name__}, not a Difformer: leave it out, since only a "
            "Difformer reads Gaussian noise"
        )
    if args.points > model.time_unit:
        raise UserError(f"--points: the model of {path} has only {model.time_unit} steps")
    device = torch.device("cuda" if torch.cuda.is_available() and not args.cpu else "cpu")
    task.load_dataset(args.gen_subset)
    dataset = task.dataset(args.gen_subset)
    order = task.filter_indices_by_size(dataset.ordered_indices(), dataset, model.max_positions())
    found = batches(args, dataset, order, device)
    return model.to(device).eval(), task, found


def render(times, curves, signature):
    """The curves as a table."""
    lines = [f"[{i + 1}] {path}" for i, path in enumerate(curves)]
    lines.append("t / T  " + "".join(f"{f'[{i + 1}]':>7}" for i in range(len(curves))))
    for i, time in enumerate(times):
        lines.append(f"{time:5.3f}  " + "".join(f"{bleu[i]:7.2f}" for bleu in curves.values()))
    mean = "".join(f"{sum(bleu) / len(bleu):7.2f}" for bleu in curves.values())
    return "\n".join([*lines, f"mean   {mean}", f"BLEU, {signature}"])


def plot(path, times, curves):
    """Fig. 2a."""
    from difformer_plugin.evaluation.plots import save_panels

    panel = {
        "title": "BLEU from pure noise",
        "x_label": "t / T that the denoiser is told",
        "y_label": "BLEU",
        "lines": {name: (times, bleu) for name, bleu in curves.items()},
    }
    save_panels(path, [panel])
