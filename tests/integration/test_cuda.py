"""Training and generation on GPUs, in all precisions; skipped where there is none."""

import os

import pytest
import torch
from harness import BIN, SENTENCES, TASK, TRAIN, error_line, logged, shell, succeed

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"),
]
GPUS = torch.cuda.device_count()
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


@pytest.fixture(scope="module")
def on_cpu(corpus, model, tmp_path_factory):
    """The translations of the CPU in float32."""
    folder = tmp_path_factory.mktemp("cpu")
    return succeed(folder, "fairseq-generate", *generation(corpus, model)).translations()


def generation(corpus, model):
    """Options of fairseq-generate with several candidates."""
    beams = ["--decoding-steps", 5, "--length-beam-size", 2, "--noise-beam-size", 2]
    return [corpus.joined, *TASK, "--path", model, *beams]


@pytest.mark.parametrize("precision, equal", [("fp32", 0.9), ("bf16", 0.4), ("fp16", 0.6)])
def test_a_gpu_translates_as_the_cpu_does(corpus, model, on_cpu, precision, equal):
    """Rounding errors may decide between two tokens of about the same probability."""
    options = [] if precision == "fp32" else ["--decoding-precision", precision]
    outcome = on_gpu("fairseq-generate", *generation(corpus, model), *options)
    translations = outcome.translations()
    assert sorted(translations) == sorted(on_cpu)
    same = [on_cpu[number] == text for number, text in translations.items()]
    assert sum(same) >= equal * len(same)


def test_int8_is_refused_on_a_gpu(corpus, model):
    args = [arg for arg in generation(corpus, model) if arg != "--cpu"]
    outcome = shell(
        *(BIN / "fairseq-generate", *args, "--decoding-precision", "int8"),
        CUDA_VISIBLE_DEVICES=VISIBLE,
    )
    assert "int8 is for CPUs" in error_line(outcome)


@pytest.mark.skipif(GPUS < 2, reason="one GPU")
def test_all_gpus_train_together(corpus, tmp_path):
    """Each update reads as many batches as there are GPUs, and all end with the same weights."""
    options = [arg for arg in TRAIN if arg != "--cpu"]
    outcome = shell(
        *(BIN / "fairseq-train", corpus.joined, *options, "--share-all-embeddings"),
        *("--max-update", 12, "--save-dir", tmp_path, "--distributed-world-size", GPUS),
        CUDA_VISIBLE_DEVICES=",".join(map(str, range(GPUS))),
    )
    assert outcome.code == 0, outcome.err[-3000:]
    assert f"training on {GPUS} devices" in outcome.out
    rows = logged(outcome.out, "train_inner")
    assert float(rows[-1]["loss"]) < float(rows[0]["loss"])
