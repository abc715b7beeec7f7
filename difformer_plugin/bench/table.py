"""The results of `difformer bench` as text tables."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

WIDTH = 24  # of the first column, in characters
COLUMNS = (  # heading, key, format
    ("sent./s", "sentences_per_second", "{:9.2f}"),
    ("tokens/s", "tokens_per_second", "{:10.1f}"),
    ("ratio", "ratio", "{:8.2f}"),
    ("p50 ms", "p50_ms", "{:10.1f}"),
    ("p95 ms", "p95_ms", "{:10.1f}"),
    ("MiB", "memory_mib", "{:9.1f}"),
    ("differ", "tokens_differing", "{:8d}"),
    ("chosen", "sentences_differing", "{:8d}"),
)
TRAINING_KEYS = ("tokens_per_second", "ratio", "p50_ms", "p95_ms", "memory_mib")

Row = Mapping[str, Any]


def cell(form: str, value: Any) -> str:
    """A formatted value; for None, a dash of the same width."""
    if value is not None:
        return form.format(value)
    return "-".rjust(len(form.format(0)))


def block(title: str, rows: Sequence[Row], keys: Collection[str] | None = None) -> str:
    """A headline, the headings, and a line for each row.

    Args:
        keys: of the columns to show; None for all.
    """
    columns = [c for c in COLUMNS if keys is None or c[1] in keys]
    heads = "".join(head.rjust(len(form.format(0))) for head, _, form in columns)
    lines = [title, " " * WIDTH + heads]
    for row in rows:
        cells = "".join(cell(form, row.get(key)) for _, key, form in columns)
        lines.append(f"{'  ' + row['name']:<{WIDTH}}{cells}")
    return "\n".join(lines)


def limit(result: Mapping[str, Any]) -> str:
    """The engine's rate of operations against that of matrix products; see `DecodeBench.limit`."""
    lines = [
        f"operations of matrix products, the longest batch, {result['title']}",
        " " * WIDTH + f"{'GFLOP':>9}{'s':>9}{'GFLOP/s':>10}{'products':>10}{'share':>8}",
    ]
    for row in result["rows"]:
        lines.append(
            f"{'  ' + row['name']:<{WIDTH}}{row['operations'] / 1e9:9.1f}{row['seconds']:9.3f}"
            f"{row['operations_per_second'] / 1e9:10.1f}{row['matrix_rate'] / 1e9:10.1f}"
            f"{row['share']:8.0%}"
        )
    return "\n".join(lines)


def mbr(result: Mapping[str, Any]) -> str:
    """MBR alone; see `mbr.measure`."""
    title = f"MBR with BLEU, {result['candidates']} candidates of {result['sentences']} sentences"
    keys = ("sentences_per_second", "ratio", "p50_ms")
    text = block(title, result["rows"], keys)
    return f"{text}\n  scores differ by at most {result['greatest_difference']:.1e}"


def lines(rows: Sequence[Row]) -> str:
    """Lines that are translated one at a time; see `lines.measure`."""
    text = block("a line at a time", rows, ("sentences_per_second", "p50_ms", "p95_ms"))
    heads, *cells = text.splitlines()[1:]
    ends = [f"{row['first_ms']:12.1f}{row['load_seconds']:9.1f}" for row in rows]
    ends = [f"{'first ms':>12}{'load s':>9}", *ends]
    return "\n".join([text.splitlines()[0], *map("".join, zip([heads, *cells], ends))])


def against(result: Mapping[str, Any]) -> str:
    """Commands side by side; see `against.measure`."""
    columns = (
        ("CPU s", 9),
        ("sent./s", 9),
        ("ratio", 8),
        ("wall s", 9),
        ("start s", 9),
        ("equal", 7),
    )
    heads = "".join(f"{head:>{width}}" for head, width in columns)
    lines = [f"{result['title']}, {result['sentences']} sentences", " " * WIDTH + heads]
    for row in result["rows"]:
        lines.append(
            f"{'  ' + row['name']:<{WIDTH}}{row['cpu_seconds']:9.4f}{1 / row['cpu_seconds']:9.2f}"
            f"{row['ratio']:8.2f}{row['wall_seconds']:9.4f}{row['start_seconds']:9.2f}"
            f"{row['equal']:7d}"
        )
    return "\n".join(lines)


def scaling(rows: Sequence[Row]) -> str:
    """The growth of the cost by each factor; see `scaling.measure`."""
    lines = [
        f"{'the engine, by':<{WIDTH}}{'value':>8}{'x':>8}{'ms/sentence':>13}{'x':>8}",
    ]
    for row in rows:
        lines.append(
            f"{'  ' + row['factor']:<{WIDTH}}{row['value']:8g}{row['factor_growth']:8.2f}"
            f"{row['ms_per_sentence']:13.1f}{row['growth']:8.2f}"
        )
    return "\n".join(lines)
