"""Training and generation on a GPU, in half precision; skipped where there is none."""

import os

import pytest
import torch
from harness import BIN, SENTENCES, TASK, TRAIN, logged, shell

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
VISIBLE = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]


def on_gpu(command, *args):
    """Run a command of fairseq that sees one GPU, in a process of its own."""
    given = [arg for arg in args if arg != "--cpu"]
    outcome = shell(BIN / command, *given, CUDA_VISIBLE_DEVICES=VISIBLE)
    assert outcome.code == 0, outcome.err[-3000:]
    return outcome


@pytest.mark.parametrize("precision", ["--fp16", "--bf16"])
def test_half_precision_trains_and_generates(corpus, tmp_path, precision):
    outcome = on_gpu(
        *("fairseq-train", corpus.joined, *TRAIN, "--share-all-embeddings", precision),
        *("--max-update", 20, "--save-dir", tmp_path),
    )
    rows = logged(outcome.out, "train_inner")
    assert float(rows[-1]["loss"]) < float(rows[0]["loss"])
    outcome = on_gpu(
        *("fairseq-generate", corpus.joined, *TASK, "--path", tmp_path / "checkpoint_last.pt"),
        *("--decoding-steps", 3, "--length-beam-size", 2, "--noise-beam-size", 2, "--fp16"),
    )
    assert sorted(outcome.translations()) == list(range(SENTENCES))


def test_half_precision_chooses_by_a_teacher(corpus, model, teacher):
    outcome = on_gpu(
        *("fairseq-generate", corpus.joined, *TASK, "--path", f"{model}:{teacher}", "--fp16"),
        *("--decoding-steps", 3, "--noise-beam-size", 3, "--ppl-mbr"),
    )
    assert sorted(outcome.translations()) == list(range(SENTENCES))
