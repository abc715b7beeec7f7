"""BLEU of the checkpoints of trainings by minutes of training.

    fairseq-train ... --log-format simple --save-interval-updates 250 --no-epoch-checkpoints > LOG
    fairseq-generate ... --path checkpoint_5_1000.pt --remove-bpe > FOLDER/checkpoint_5_1000.out
    python benchmarks/by_minutes.py NAME=LOG:FOLDER NAME=TABLE.tsv ... [--plot FILE]

The outputs in FOLDER have the names of their checkpoints. Minutes are those between the lines of
the log, from the first epoch on; they include validation, but no pause before a training resumed.
With --undisturbed, all updates count as long as those at the lower quartile: for trainings that
shared their core with other work. BLEU is computed on the words as tokenised in the data.
TABLE.tsv is a curve of an earlier training: updates, minutes and BLEU, separated by tabs.
"""

import argparse
import re
from datetime import datetime
from pathlib import Path

import numpy as np
from one_line_errors import run_script
from sacrebleu.metrics import BLEU

from difformer_plugin.evaluation.outputs import parse_outputs
from difformer_plugin.evaluation.plots import save_panels

EVENT = re.compile(
    r"^(?P<time>[\d-]+ [\d:]+) .*?(?:train_inner .*\bnum_updates=(?P<updates>\d+)"
    r"|Loaded checkpoint .* @ (?P<loaded>\d+) updates|(?P<epoch>begin training epoch))",
    re.MULTILINE,
)
UPDATES = re.compile(r"_(\d+)\.out$")  # in checkpoint_5_1000.out
METRIC = BLEU(tokenize="none", force=True)


def minutes_of(log: str) -> tuple[list[int], list[float]]:
    """Numbers of updates, ascending, and the minutes of training until then.

    Args:
        log: the output of fairseq-train; where a training resumes from a checkpoint, the updates
            that were made after it are made again, and do not count.
    """
    minutes: dict[int, float] = {0: 0.0}
    begun, before = None, 0.0  # when the training began or resumed, and the minutes until then
    for event in EVENT.finditer(log):
        time = datetime.fromisoformat(event["time"])
        if event["loaded"]:
            loaded = int(event["loaded"])
            begun, before = None, np.interp(loaded, sorted(minutes), sorted(minutes.values()))
            minutes = {n: m for n, m in minutes.items() if n < loaded} | {loaded: before}
        elif event["epoch"]:
            begun = begun or time
        elif begun is not None:
            minutes[int(event["updates"])] = before + (time - begun).total_seconds() / 60
    return sorted(minutes), sorted(minutes.values())


def undisturbed(updates: list[int], minutes: list[float]) -> list[float]:
    """The minutes, if all updates took as long as those at the lower quartile."""
    pace = np.diff(minutes) / np.diff(updates)
    return [float(np.quantile(pace, 0.25)) * number for number in updates]


def bleu_of(output: str) -> float:
    """BLEU of the best candidates in the output of fairseq-generate."""
    found = parse_outputs(output.splitlines())
    numbers = sorted(found.references)
    references = [found.references[number] for number in numbers]
    return METRIC.corpus_score([found.best[number] for number in numbers], [references]).score


def curve(run: str, alone: bool = False) -> list[tuple[int, float, float]]:
    """Updates, minutes and BLEU: of each checkpoint of LOG:FOLDER, or recorded in TABLE.tsv.

    Args:
        alone: whether minutes are those of `undisturbed`.
    """
    if run.endswith(".tsv"):
        rows = [line.split("\t") for line in Path(run).read_text("utf-8").splitlines()]
        return [(int(updates), float(minutes), float(bleu)) for updates, minutes, bleu in rows]
    log, folder = run.rsplit(":", 1)
    known = minutes_of(Path(log).read_text("utf-8"))
    known = (known[0], undisturbed(*known)) if alone else known
    outputs = {
        int(found[1]): p for p in Path(folder).iterdir() if (found := UPDATES.search(p.name))
    }
    return [
        (updates, float(np.interp(updates, *known)), bleu_of(outputs[updates].read_text("utf-8")))
        for updates in sorted(outputs)
    ]


def main() -> None:
    """Print a table a training, and write the plot."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("runs", nargs="+", metavar="NAME=RUN", help="LOG:FOLDER or TABLE.tsv")
    add("--undisturbed", action="store_true", help="as if no other work had shared the core")
    add("--plot", metavar="FILE", help="also plot the curves, to .png, .svg or .pdf")
    args = parser.parse_args()
    named = [entry.split("=", 1) for entry in args.runs]
    for entry in named:
        if len(entry) != 2 or not (entry[1].endswith(".tsv") or ":" in entry[1]):
            parser.error(f"{'='.join(entry)} is neither NAME=LOG:FOLDER nor NAME=TABLE.tsv")
    curves = {name: curve(run, args.undisturbed) for name, run in named}
    for name, rows in curves.items():
        print(f"| {name}: updates | minutes | BLEU |\n|---:|---:|---:|")
        print(
            "\n".join(f"| {updates} | {m:.1f} | {bleu:.2f} |" for updates, m, bleu in rows) + "\n"
        )
    METRIC.corpus_score(["a"], [["a"]])  # there is no signature before the first score
    print(f"BLEU {METRIC.get_signature()}")
    if args.plot:
        lines = {
            name: list(zip(*((m, bleu) for _, m, bleu in rows))) for name, rows in curves.items()
        }
        labels = {"x_label": "minutes of training", "y_label": "BLEU"}
        save_panels(args.plot, [{"title": "BLEU by minutes of training", "lines": lines} | labels])


if __name__ == "__main__":
    run_script(main)
