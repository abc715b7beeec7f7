"""The reports of `difformer tune`: tables, a plot, and the comments of its settings file."""

from argparse import Namespace
from pathlib import Path
from typing import Any


def settings_comments(args: Namespace, result: dict[str, Any]) -> list[str]:
    """The comments at the head of the settings file: how it was found, and how it performs."""
    chosen, reference = result["chosen"], result["reference"]
    low, high = chosen["loss_interval"]
    return [
        f"found by difformer tune {result['version']} within a loss of {args.max_loss:g} BLEU",
        f"data: {result['sentences']:,} sentences of {args.gen_subset} of {args.data} in batches "
        f"of {args.batch_size}; speed depends on the batch size",
        f"model: {args.path}",
        f"machine: {result['machine']}",
        f"these settings: {_performance(chosen)}, {chosen['ratio']:.1f} times the reference",
        f"reference: {_performance(reference)} with {reference['name']}",
        f"loss: {chosen['loss']:.2f} BLEU, 95 % interval of the paired bootstrap {low:.2f} to "
        f"{high:.2f}",
        f"BLEU: {result['signature']}, on the tokenised text of the data",
    ]


def _performance(row):
    return f"BLEU {row['bleu']:.2f}, {row['sentences_per_second']:.2f} sentences/s"


def render(args: Namespace, result: dict[str, Any]) -> str:
    """The Pareto front as a table, with the reference and the chosen settings marked."""
    chosen, reference = result["chosen"], result["reference"]
    rows = sorted(result["front"], key=lambda each: each["sentences_per_second"])
    width = max(len(each["name"]) for each in rows)
    lines = [f"  {'settings':{width}}   BLEU   loss  sentences/s  ratio"]
    for each in rows:
        mark = "*" if each is chosen else "r" if each is reference else " "
        lines.append(
            f"{mark} {each['name']:{width}} {each['bleu']:6.2f} {each['loss']:6.2f} "
            f"{each['sentences_per_second']:12.2f} {each['ratio']:5.1f}x"
        )
    low, high = chosen["loss_interval"]
    lines += [
        f"r: reference; *: written to {args.out}, loss {chosen['loss']:.2f} (95 %: {low:.2f} to "
        f"{high:.2f})",
        f"{result['sentences']:,} sentences of {args.gen_subset} in batches of "
        f"{args.batch_size}, {result['machine']}",
        f"BLEU, {result['signature']}",
        f"{args.out}.journal keeps all measurements: other --max-loss or --max-trials reuse them",
    ]
    if chosen is reference:
        lines.insert(-3, _why_nothing_is_faster(args, rows))
    return "\n".join(lines)


def _why_nothing_is_faster(args: Namespace, rows: list[dict[str, Any]]) -> str:
    """The least loss of any faster settings of the front, and the remedy."""
    faster = [each for each in rows if each["ratio"] > 1]
    remedy = "allow a greater --max-loss or more trials"
    if not faster:
        return f"nothing faster was found: {remedy}"
    best = min(faster, key=lambda each: each["loss"])
    return (
        f"nothing faster was found within {args.max_loss:g}: the least that faster settings "
        f"lose is {best['loss']:.2f}, at {best['ratio']:.1f}x; {remedy}"
    )


def weights_comments(args: Namespace, result: dict[str, Any]) -> list[str]:
    """The comments at the head of a settings file with fitted weights of rerankers."""
    return [
        f"rerank was fitted by difformer tune {result['version']} --fit-rerank {args.fit_rerank}",
        f"data: {result['sentences']:,} sentences of {args.gen_subset} of {args.data}",
        f"model: {args.path}",
        *_weights_summary(result),
        f"BLEU: {result['signature']}, on the tokenised text of the data",
    ]


def render_weights(args: Namespace, result: dict[str, Any]) -> str:
    """BLEU of each reranker alone and of their weighted sum, as a table."""
    rows = [*result["alone"].items(), ("oracle", result["oracle"])]
    width = max(len(name) for name, _ in rows)
    return "\n".join(
        [
            *(f"{name:{width}} {bleu:6.2f}" for name, bleu in rows),
            *_weights_summary(result),
            f"{result['sentences']:,} sentences of {args.gen_subset}, BLEU {result['signature']}",
            f"written to {args.out}; {args.out}.candidates keeps all candidates and scores: other "
            "--fit-rerank reuse them",
        ]
    )


def _weights_summary(result):
    low, high = result["gain_interval"]
    lines = [
        f"fitted: {result['rerank']}, BLEU {result['bleu']:.2f}; {result['cross_validated']:.2f} "
        f"cross-validated ({result['folds']} folds)",
        f"cross-validated gain over the best reranker alone: 95 % interval of the paired bootstrap "
        f"{low:+.2f} to {high:+.2f}",
    ]
    if result["left_out"]:
        lines.append(f"left out, since they gain nothing: {', '.join(result['left_out'])}")
    return lines


def plot(path: Path, args: Namespace, result: dict[str, Any]) -> None:
    """Plot BLEU by speed to a file: the front, and all settings measured on all sentences."""
    from difformer_plugin.evaluation.plots import save_panels

    front = sorted(result["front"], key=lambda each: each["sentences_per_second"])
    bleu = [each["bleu"] for each in front]
    base = result["reference"]["bleu"]
    others = [
        (1 / trial["seconds"], base - trial["loss"]) for trial in result["trials"] if trial["whole"]
    ]
    speeds = [each["sentences_per_second"] for each in front]
    lowest, highest = min(*bleu, base - args.max_loss), max(bleu)
    margin = 0.1 * (highest - lowest) + 0.05
    panel = {
        "title": result["machine"],
        "x_label": f"sentences/s, in batches of {args.batch_size}",
        "y_label": f"BLEU on {args.gen_subset}",
        "lines": {
            "timed in alternation": (speeds, bleu),
            f"--max-loss {args.max_loss:g}": (
                [min(speeds), max(speeds)],
                [base - args.max_loss] * 2,
            ),
        },
        "dots": {
            "measured once": tuple(zip(*others)),
            "chosen": ([result["chosen"]["sentences_per_second"]], [result["chosen"]["bleu"]]),
        },
        "x_scale": "log",
        "y_limits": (lowest - margin, highest + margin),
    }
    save_panels(path, [panel])
