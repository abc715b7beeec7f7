"""Joint sequences through fairseq's and our commands."""

import pytest
import torch
from harness import (
    EXAMPLES,
    SENTENCES,
    TASK,
    USER_DIR,
    load,
    quick_and_slow,
    succeed,
    weights,
)

TRAIN = [
    *("--arch", "joint_diffusion_tiny", "--criterion", "joint_diffusion_loss"),
    *("--model-dim", 32, "--latent-dim", 16, "--decoder-layers", 1, "--dropout", 0),
    *("--rescaling-factor", 2, "--self-cond", "--optimizer", "adam", "--lr", 0.002),
    *("--max-tokens", 512, "--cpu", "--log-format", "simple", "--disable-validation"),
]
SYSTEMS = {
    "diffuseq": ["--source-dropout", 0.2, "--pred-length-offset", "--time-sampling", "importance"],
    "diffusion-lm": ["--conditioning", "full", "--length-by-padding", "--prediction", "epsilon"],
}


@pytest.fixture
def generate(corpus, tmp_path):
    def call(path, *options):
        command = ["fairseq-generate", corpus.joined, *TASK, "--path", path, "--cpu"]
        outcome = succeed(tmp_path, *command, "--decoding-steps", 3, "--seed", 5, *options)
        assert sorted(outcome.translations()) == list(range(SENTENCES))
        return outcome.translations()

    return call


@pytest.mark.parametrize("system", quick_and_slow([("diffuseq",)], [("diffusion-lm",)]))
def test_a_system_trains_resumes_and_translates(corpus, generate, tmp_path, system):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    command = ["fairseq-train", corpus.joined, *TASK, *TRAIN, *SYSTEMS[system]]
    succeed(tmp_path, *command, "--max-update", 4, "--save-dir", whole)
    for updates in (2, 4):
        succeed(tmp_path, *command, "--max-update", updates, "--save-dir", parts)
    path = whole / "checkpoint_last.pt"
    expected, found = weights(path), weights(parts / "checkpoint_last.pt")
    assert all(torch.equal(value, found[name]) for name, value in expected.items())
    options = ["--guidance-scale", 1] if system == "diffuseq" else ["--infill", "noised"]
    assert generate(path) != generate(path, *options)
    succeed(tmp_path, "difformer", "average", whole, "--last", 1, "--out", tmp_path / "average.pt")


@pytest.mark.slow
def test_the_example_of_hydra_trains(corpus, generate, tmp_path):
    sizes = {"model_dim": 32, "latent_dim": 16, "decoder_layers": 1}
    succeed(
        tmp_path,
        *("fairseq-hydra-train", "--config-dir", EXAMPLES / "hydra"),
        *("--config-name", "joint_diffusion", f"hydra.run.dir={tmp_path}", "common.cpu=true"),
        *(f"task.data={corpus.joined}", f"common.user_dir={USER_DIR}"),
        *(f"++model.{name}={value}" for name, value in sizes.items()),
        *("optimization.max_update=4", "lr_scheduler.warmup_updates=1", "dataset.max_tokens=512"),
        *("task.decoding_steps=3", "task.decoding_early_stopping=0"),
        f"checkpoint.save_dir={tmp_path}",
    )
    model = load(tmp_path / "checkpoint_last.pt")["cfg"]["model"]
    assert (model["conditioning"], model["latent_dim"]) == ("partial", 16)
    generate(tmp_path / "checkpoint_best.pt")
