"""Show the validation scores in logs of fairseq-train as Markdown tables or as a plot."""

import argparse
import re
from collections.abc import Iterable, Mapping, Sequence

Row = dict[str, str]  # the numbers of a validation, as logged, by name

COLUMNS = ("num_updates", "loss", "mse", "anchor_nll", "length", "ani", "dgs", "bleu")
VALID = re.compile(r"\| valid \|.*")


def read_curve(lines: Iterable[str]) -> list[Row]:
    """Read the numbers of each validation in a log."""
    rows = []
    for line in lines:
        if VALID.search(line):
            parts = (part.split() for part in line.split("|"))
            rows.append({part[0]: part[1] for part in parts if len(part) == 2})
    return rows


def render(rows: Sequence[Row], every: int = 1) -> str:
    """A Markdown table of every n-th validation and the last one."""
    last = len(rows) - 1
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---:|" * len(COLUMNS)]
    for i, row in enumerate(rows):
        if i % every == 0 or i == last:
            lines.append("| " + " | ".join(row.get(name, "-") for name in COLUMNS) + " |")
    return "\n".join(lines)


def plot(path: str, curves: Mapping[str, Sequence[Row]], columns: Sequence[str]) -> None:
    """Write a plot with a panel for each column, and a line for each log that has the column.

    Args:
        path: of the image; its suffix names the format.
        curves: for each name the rows of a log.
        columns: names of logged numbers.
    """
    from difformer_plugin.evaluation.plots import save_panels

    panels = []
    for column in columns:
        lines = {
            name: zip(*((int(row["num_updates"]), float(row[column])) for row in rows))
            for name, rows in curves.items()
            if any(column in row for row in rows)
        }
        title = f"{column}, validation"
        panels.append({"title": title, "x_label": "updates", "y_label": column, "lines": lines})
    save_panels(path, panels)


def main() -> None:
    """Print the tables, or write the plot."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("log", nargs="+", help="output of fairseq-train with --log-format simple, or NAME=LOG")
    add("--every", type=int, default=1, help="show every n-th validation")
    add(
        "--plot",
        metavar="FILE",
        help="write a plot (.png, .svg or .pdf) instead of printing tables",
    )
    add("--columns", nargs="+", default=["bleu"], choices=COLUMNS[1:], help="numbers to plot")
    args = parser.parse_args()
    curves = {}
    for log in args.log:
        name, _, path = log.rpartition("=")
        with open(path, encoding="utf-8") as lines:
            curves[name or path] = read_curve(lines)
    if args.plot:
        plot(args.plot, curves, args.columns)
    else:
        print("\n\n".join(render(rows, args.every) for rows in curves.values()))


if __name__ == "__main__":
    main()
