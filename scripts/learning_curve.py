"""The learning curve in a log of fairseq-train, as a Markdown table: validation by update."""

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


def main():
    """Print the table of a log."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("log", help="output of fairseq-train with --log-format simple")
    parser.add_argument("--every", type=int, default=1, help="show every n-th validation")
    args = parser.parse_args()
    with open(args.log, encoding="utf-8") as lines:
        print(render(read_curve(lines), args.every))


if __name__ == "__main__":
    main()
