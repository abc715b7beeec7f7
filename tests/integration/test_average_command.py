"""`difformer average` on checkpoints of fairseq, as a user runs it."""

import os

import torch
from conftest import train_teacher
from harness import SENTENCES, TASK, error_line, load, run, succeed


class Evil:
    def __reduce__(self):
        return os.mkdir, ("evil-was-here",)


def test_the_average_of_a_training_run(corpus, tmp_path):
    """fairseq-generate translates with it; each update counts once, even if it has two files."""
    save = tmp_path / "save"
    save.mkdir()
    train_teacher(corpus.joined, save, "--save-interval-updates", 5, "--max-tokens", 2000)
    names = {path.name for path in save.glob("*.pt")}
    assert names == {f"checkpoint{name}.pt" for name in ("_2_5", "_4_10", "_best", "_last")}
    out = tmp_path / "mean.pt"
    printed = succeed(tmp_path, "difformer", "average", save, "--last", 2, "--out", out).out
    assert "checkpoint_2_5.pt" in printed and "checkpoint_4_10.pt" in printed
    states = [load(save / f"checkpoint_{n}.pt")["model"] for n in ("2_5", "4_10")]
    mean = load(out)
    assert mean["last_optimizer_state"] is None
    for name, tensor in mean["model"].items():
        expected = (states[0][name].double() + states[1][name].double()) / 2
        torch.testing.assert_close(tensor.double(), expected, rtol=1e-6, atol=1e-9)
    assert not all(torch.equal(mean["model"][name], states[1][name]) for name in states[1])
    generate = ["fairseq-generate", corpus.joined, "--path", out, "--user-dir", TASK[3], "--cpu"]
    outcome = succeed(tmp_path, *generate, "--required-batch-size-multiple", 1)
    assert len(outcome.translations()) == SENTENCES

    few = succeed(tmp_path, "difformer", "average", save, "--last", 5, "--out", tmp_path / "few.pt")
    assert "has only 2 of the 5 checkpoints" in few.out and "--keep-last-epochs 5" in few.out
    assert all(
        torch.equal(load(tmp_path / "few.pt")["model"][n], t) for n, t in mean["model"].items()
    )
    best = succeed(
        tmp_path, "difformer", "average", save, "--best", 5, "--out", tmp_path / "best.pt"
    )
    assert "--keep-best-checkpoints 5" in best.out

    command = ["average", save, "--last", 2, "--out", tmp_path / "refused.pt"]
    torch.save({"model": Evil()}, save / "checkpoint3.pt")
    line = error_line(run(tmp_path, "difformer", *command))
    assert "checkpoint3.pt is refused" in line
    assert not os.path.exists("evil-was-here") and not (tmp_path / "refused.pt").exists()
