"""benchmarks/by_minutes.py: BLEU of checkpoints by the minutes that fairseq logs."""

import subprocess
import sys
from pathlib import Path

import pytest
from sacrebleu.metrics import BLEU

SCRIPT = Path(__file__).parents[2] / "benchmarks/by_minutes.py"
LOG = """\
2026-01-01 00:59:00 | INFO | fairseq.trainer | No existing checkpoint found last.pt
2026-01-01 01:00:00 | INFO | fairseq.trainer | begin training epoch 1
2026-01-01 01:01:00 | INFO | train_inner | epoch 001: 50 / 120 loss=2.7, num_updates=50, wall=61
2026-01-01 01:02:00 | INFO | train_inner | epoch 001: 100 / 120 loss=2.7, num_updates=100, wall=121
2026-01-01 01:02:30 | INFO | fairseq.trainer | begin training epoch 2
2026-01-01 01:03:00 | INFO | train_inner | epoch 002: 30 / 120 loss=2.7, num_updates=150, wall=181
2026-01-01 01:16:39 | INFO | train_inner | epoch 002: 80 / 120 loss=2.7, num_updates=200, wall=999
2026-01-02 09:00:00 | INFO | fairseq.trainer | Loaded checkpoint last.pt (epoch 2 @ 150 updates)
2026-01-02 09:01:00 | INFO | fairseq.trainer | begin training epoch 2
2026-01-02 09:03:00 | INFO | train_inner | epoch 002: 80 / 120 loss=2.7, num_updates=200, wall=0
2026-01-02 09:04:00 | INFO | fairseq.trainer | begin training epoch 3
2026-01-02 09:05:00 | INFO | train_inner | epoch 003: 60 / 120 loss=2.7, num_updates=300, wall=0
"""
REFERENCES = ["a man rides a red bicycle .", "two dogs run over the green grass ."]
OUTPUTS = {
    100: ["a man .", "two dogs run ."],
    250: [REFERENCES[0], "two cats run over the grass ."],
}


@pytest.fixture
def run(tmp_path):
    """A log that was interrupted after 200 updates and resumed at 150, and two outputs."""
    (tmp_path / "train.log").write_text(LOG)
    folder = tmp_path / "out"
    folder.mkdir()
    for updates, outputs in OUTPUTS.items():
        rows = enumerate(zip(REFERENCES, outputs))
        text = "".join(f"S-{i}\tx\nT-{i}\t{r}\nH-{i}\t-0.1\t{o}\n" for i, (r, o) in rows)
        (folder / f"checkpoint_1_{updates}.out").write_text(text)
    return f"{tmp_path / 'train.log'}:{folder}"


def test_minutes_are_interpolated_and_bleu_is_sacrebleus(run, tmp_path):
    plot = tmp_path / "curve.svg"
    earlier = tmp_path / "earlier.tsv"
    earlier.write_text("100\t1.5\t8.25\n")
    command = [sys.executable, SCRIPT, f"ours={run}", f"before={earlier}", "--plot", plot]
    outcome = subprocess.run(command, capture_output=True, text=True)
    assert outcome.returncode == 0, outcome.stderr
    rows = [line.strip("| ").split(" | ") for line in outcome.stdout.splitlines()[2:4]]
    metric = BLEU(tokenize="none", force=True)
    expected = [metric.corpus_score(OUTPUTS[n], [REFERENCES]).score for n in (100, 250)]
    # 250 lies in the middle of 200, which the resumed training made after 5 minutes, and 300
    assert [(row[0], row[1]) for row in rows] == [("100", "2.0"), ("250", "6.0")]
    assert [float(row[2]) for row in rows] == pytest.approx(expected, abs=0.005)
    assert "| before: updates | minutes |" in outcome.stdout
    assert "| 100 | 1.5 | 8.25 |" in outcome.stdout
    assert str(metric.get_signature()) in outcome.stdout
    assert "<!-- ours -->" in plot.read_text("utf-8")


def test_recorded_curves_alone_are_plotted_too(tmp_path):
    earlier, plot = tmp_path / "earlier.tsv", tmp_path / "curve.svg"
    earlier.write_text("100\t1.5\t8.25\n200\t3\t9\n")
    command = [sys.executable, SCRIPT, f"before={earlier}", "--plot", plot]
    outcome = subprocess.run(command, capture_output=True, text=True)
    assert outcome.returncode == 0, outcome.stderr
    assert "BLEU nrefs:1" in outcome.stdout and "<!-- before -->" in plot.read_text("utf-8")


def test_undisturbed_minutes_are_those_of_quick_updates(run):
    """50 updates took 1, 1, 1 and 2 minutes, and 100 took 2."""
    command = [sys.executable, SCRIPT, f"ours={run}", "--undisturbed"]
    outcome = subprocess.run(command, capture_output=True, text=True)
    assert outcome.returncode == 0, outcome.stderr
    rows = [line.strip("| ").split(" | ")[:2] for line in outcome.stdout.splitlines()[2:4]]
    assert rows == [["100", "2.0"], ["250", "5.0"]]
