from difformer_plugin.bench import table

ROW = {
    "name": "plain",
    "sentences_per_second": 12.345,
    "tokens_per_second": 150.0,
    "ratio": 1.0,
    "p50_ms": 81.0,
    "p95_ms": 1234567.0,
    "memory_mib": None,
    "tokens_differing": 0,
    "sentences_differing": 3,
}


def test_columns_are_aligned_with_their_headings():
    baseline = {k: v for k, v in ROW.items() if "differing" not in k} | {"name": "cmlm"}
    title, heads, *rows = table.block("K = 5", [ROW, baseline]).splitlines()
    assert title == "K = 5" and len({len(line) for line in (heads, *rows)}) == 1
    names = [name for name, _, _ in table.COLUMNS]
    ends = [heads.index(name) + len(name) for name in names]
    for line in rows:
        assert all(line[end : end + 1] in ("", " ") and line[end - 1] != " " for end in ends)
    assert rows[0].split() == [
        "plain",
        "12.35",
        "150.0",
        "1.00",
        "81.0",
        "1234567.0",
        "-",
        "0",
        "3",
    ]
    assert rows[1].split()[-2:] == ["-", "-"]


def test_selected_columns():
    lines = table.block("training", [ROW], table.TRAINING_KEYS).splitlines()
    assert lines[1].split() == ["tokens/s", "ratio", "p50", "ms", "p95", "ms", "MiB"]
    assert lines[2].split() == ["plain", "150.0", "1.00", "81.0", "1234567.0", "-"]


def test_the_limit_is_shown_in_gflop():
    row = {
        "name": "engine",
        "operations": 12e9,
        "seconds": 0.5,
        "operations_per_second": 24e9,
        "matrix_rate": 96e9,
        "share": 0.25,
    }
    text = table.limit({"title": "K = 5", "rows": [row]})
    assert text.splitlines()[-1].split() == ["engine", "12.0", "0.500", "24.0", "96.0", "25%"]


def test_lines_have_a_first_and_a_load_time():
    row = {"name": "K = 2", "first_ms": 80.25, "load_seconds": 1.5, "sentences_per_second": 20.0}
    text = table.lines([row | {"p50_ms": 50.0, "p95_ms": 60.0}])
    assert text.splitlines()[0] == "a line at a time"
    heads = ["sent./s", "p50", "ms", "p95", "ms", "first", "ms", "load", "s"]
    assert text.splitlines()[1].split() == heads
    assert text.splitlines()[2].split() == ["K", "=", "2", "20.00", "50.0", "60.0", "80.2", "1.5"]
