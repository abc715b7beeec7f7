"""The script behind `make test-gpu`, rehearsed on the CPU."""

import json
import runpy
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "gpu_check.py"
REPORT = """<testsuites><testsuite>
<testcase classname="a" name="well"/>
<testcase classname="a" name="ill"><failure message="no"/></testcase>
<testcase classname="a" name="worse"><error message="no"/></testcase>
<testcase classname="b" name="not here"><skipped message="one GPU"/></testcase>
</testsuite></testsuites>"""


@pytest.fixture(scope="module")
def script():
    return runpy.run_path(str(SCRIPT))


@pytest.mark.slow
def test_rehearsal_writes_what_a_gpu_would(script, corpus, tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    out = tmp_path / "gpu.json"
    assert script["main"](["--rehearse", "--data", str(corpus.joined), "--out", str(out)]) == 0
    found = json.loads(out.read_text("utf-8"))
    assert found["rehearsal"] and found["gpus"] == [] and found["torch"]
    assert "tests.decoding.test_graphs" in " ".join(found["tests"]["passed"])
    assert not found["tests"]["failed"]
    (block,) = found["decode"]["blocks"]
    assert [row["name"] for row in block["rows"]] == ["engine"]
    assert [row["name"] for row in found["train"]["rows"]] == ["engine"]


def test_without_a_gpu_it_says_so(script, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert script["main"](["--out", str(tmp_path / "gpu.json")]) == 2
    assert "no GPU" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_outcomes_of_tests_are_read_from_the_report(script, tmp_path):
    path = tmp_path / "tests.xml"
    path.write_text(REPORT, "utf-8")
    assert script["read_report"](path) == {
        "passed": ["a.well"],
        "failed": ["a.ill", "a.worse"],
        "skipped": ["b.not here"],
    }
    assert script["read_report"](tmp_path / "none.xml")["failed"] == ["pytest did not start"]


def test_rows_are_those_of_the_bench(script):
    from difformer_plugin.bench import decode_rows, train

    assert set(script["DECODE"]["rows"]) <= set(decode_rows.NAMES)
    assert set(script["TRAIN"]["rows"]) <= set(train.ROWS)
