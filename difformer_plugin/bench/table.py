"""The results of `difformer bench` as text for a terminal."""

WIDTH = 24  # of the first column
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
TRAINING = ("tokens_per_second", "ratio", "p50_ms", "p95_ms", "memory_mib")


def cell(form, value):
    """A value, or a dash where there is none, in the width of the format."""
    if value is not None:
        return form.format(value)
    return "-".rjust(len(form.format(0)))


def block(title, rows, keys=None):
    """A headline, then a line a row."""
    columns = [c for c in COLUMNS if keys is None or c[1] in keys]
    heads = "".join(head.rjust(len(form.format(0))) for head, _, form in columns)
    lines = [title, " " * WIDTH + heads]
    for row in rows:
        cells = "".join(cell(form, row.get(key)) for _, key, form in columns)
        lines.append(f"{'  ' + row['name']:<{WIDTH}}{cells}")
    return "\n".join(lines)


def limit(result):
    """The arithmetic limit."""
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


def mbr(result):
    """MBR alone."""
    title = f"MBR with BLEU, {result['candidates']} candidates of {result['sentences']} sentences"
    keys = ("sentences_per_second", "ratio", "p50_ms")
    text = block(title, result["rows"], keys)
    return f"{text}\n  scores differ by at most {result['greatest_difference']:.1e}"


def scaling(rows):
    """Growth of the cost by each factor."""
    lines = [
        f"{'the engine, by':<{WIDTH}}{'value':>8}{'x':>8}{'ms/sentence':>13}{'x':>8}",
    ]
    for row in rows:
        lines.append(
            f"{'  ' + row['factor']:<{WIDTH}}{row['value']:8g}{row['factor_growth']:8.2f}"
            f"{row['ms_per_sentence']:13.1f}{row['growth']:8.2f}"
        )
    return "\n".join(lines)
