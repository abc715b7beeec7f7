"""Learning curves in logs of fairseq-train: validation by update, as a Markdown table or a plot."""

import argparse
import re

COLUMNS = ("num_updates", "loss", "mse", "anchor_nll", "length", "ani", "dgs", "bleu")
VALID = re.compile(r"\| valid \|.*")


def read_curve(lines):
    """One dictionary of the logged numbers for each validation in the log."""
    rows = []
    for line in lines:
        if VALID.search(line):
            parts = (part.split() for part in line.split("|"))
            rows.append({part[0]: part[1] for part in parts if len(part) == 2})
    return rows


def render(rows, every=1):
    """The table, with every n-th validation and the last one."""
    last = len(rows) - 1
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---:|" * len(COLUMNS)]
    for i, row in enumerate(rows):
        if i % every == 0 or i == last:
            lines.append("| " + " | ".join(row.get(name, "-") for name in COLUMNS) + " |")
    return "\n".join(lines)


def plot(path, curves, columns):
    """A panel for each of the columns, with a line for each log that has it.

    Args:
        curves: name -> rows of `read_curve`.
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


def main():
    """Print the table of a log, or plot several."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("log", nargs="+", help="output of fairseq-train with --log-format simple, or NAME=LOG")
    add("--every", type=int, default=1, help="show every n-th validation")
    add("--plot", metavar="FILE", help="instead of tables, a plot: FILE.png, .svg or .pdf")
    add("--columns", nargs="+", default=["bleu"], choices=COLUMNS[1:], help="of the plot")
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
