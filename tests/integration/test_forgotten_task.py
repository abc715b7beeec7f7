"""fairseq's default task is `translation`: what a user sees who has forgotten to give ours."""

import pytest
from harness import TASK, TRAIN, USER_DIR, error_line, run

PLAIN = ["--user-dir", USER_DIR, "--cpu"]
SAID = "needs --task diffusion_translation, not --task translation, fairseq's default"


def test_training(corpus, tmp_path):
    options = [word for word in TRAIN if word not in TASK[:2]]
    command = [corpus.joined, *options, "--max-update", 1, "--save-dir", tmp_path / "save"]
    assert SAID in error_line(run(tmp_path, "fairseq-train", *command))
    assert not list(tmp_path.glob("save/*"))


@pytest.mark.parametrize("command", ["fairseq-generate", "fairseq-interactive"])
def test_decoding(corpus, model, tmp_path, command):
    line = error_line(run(tmp_path, command, corpus.joined, *PLAIN, "--path", model))
    assert "a Difformer" in line and SAID in line
    line = error_line(
        run(tmp_path, command, corpus.joined, *PLAIN, "--path", model, "--decoding-steps", 3)
    )
    assert "--decoding-steps belongs to --task diffusion_translation" in line


def test_validation(corpus, model, tmp_path):
    command = [corpus.joined, *PLAIN, "--path", model, "--max-tokens", 512]
    assert "--task is missing" in error_line(run(tmp_path, "fairseq-validate", *command))


def test_a_foreign_model_under_our_task(corpus, teacher, tmp_path):
    command = [corpus.joined, *TASK, "--path", teacher]
    line = error_line(run(tmp_path, "fairseq-generate", *command))
    assert "decodes diffusion models, and --path names a TransformerModel" in line
    command = [corpus.joined, *TRAIN, "--max-update", 1, "--finetune-from-model", teacher]
    line = error_line(run(tmp_path, "fairseq-train", *command, "--save-dir", tmp_path / "save"))
    assert "holds a TransformerModel, and a Difformer is trained" in line
