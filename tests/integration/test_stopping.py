"""A training that stops and resumes is as one that did not; one that begins anew counts from 0."""

import re
import shutil

import pytest
import torch
from harness import DISCRETE, TRAIN, error_line, load, quick_and_slow, run, succeed, weights

UPDATES = 7
KEEP = ["--save-interval-updates", 1, "--disable-validation", "--save-interval", 100]
FOLLOWING = ["--rescaling-factor", "auto", "--max-dgs", 0.3, "--rescaling-update-interval", 3]
KINDS = {
    "a factor that follows": [*TRAIN, "--share-all-embeddings", *FOLLOWING],
    "a process of the data": [*DISCRETE, "--process", "uniform", "--objective", "d3pm"],
}


@pytest.fixture(scope="module", params=KINDS, ids=list(KINDS))
def whole(request, corpus, tmp_path_factory):
    """A training with a checkpoint of every update, and its command."""
    folder = tmp_path_factory.mktemp("whole")
    command = ["fairseq-train", corpus.joined, *KINDS[request.param], *KEEP]
    log = succeed(folder, *command, "--max-update", UPDATES, "--save-dir", folder).out
    return folder, command, log


def followed(log):
    """The numbers of updates at which F followed the embeddings."""
    return [int(n) for n in re.findall(r"rescaling factor \S+ -> \S+ at (\d+) updates", log)]


@pytest.mark.parametrize("stop", quick_and_slow([(3,)], [(1,), (4,), (6,)]))
def test_a_training_that_stops_after_any_update(whole, tmp_path, stop):
    folder, command, log = whole
    (checkpoint,) = folder.glob(f"checkpoint_*_{stop}.pt")
    shutil.copy(checkpoint, tmp_path / "checkpoint_last.pt")
    resumed = succeed(tmp_path, *command, "--max-update", UPDATES, "--save-dir", tmp_path).out
    assert followed(resumed) == [n for n in followed(log) if n >= stop]
    states = [load(each / "checkpoint_last.pt") for each in (folder, tmp_path)]
    own, others = (state["model"] for state in states)
    assert own.keys() == others.keys()
    for name, value in own.items():
        torch.testing.assert_close(others[name], value, rtol=1e-5, atol=1e-6)
    task = [state["extra_state"]["DiffusionTranslationTask"] for state in states]
    assert task[0] == task[1]


@pytest.mark.parametrize(
    "reset",
    [
        pytest.param(["--finetune-from-model"], id="fine-tuning", marks=pytest.mark.slow),
        pytest.param(["--reset-optimizer", "--reset-dataloader", "--restore-file"], id="reset"),
    ],
)
def test_what_begins_anew_counts_from_0(corpus, tmp_path, reset):
    command = ["fairseq-train", corpus.joined, *KINDS["a factor that follows"]]
    first, second = tmp_path / "first", tmp_path / "second"
    succeed(tmp_path, *command, "--max-update", 6, "--save-dir", first)
    checkpoint = first / "checkpoint_last.pt"
    log = succeed(
        tmp_path, *command, "--max-update", 7, "--save-dir", second, *reset, checkpoint
    ).out
    assert followed(log) == [3, 6]
    given = float(weights(checkpoint)["rescaling._extra_state"][0])
    shown = re.findall(r"rescaling factor (\S+):", log)
    assert shown == [f"{given:g}"] and "from the checkpoint" in log


@pytest.mark.slow
def test_patience_counts_on(corpus, tmp_path):
    """Nothing is learned: the first validation is the best, and four more are waited for."""
    command = ["fairseq-train", corpus.joined, *TRAIN, "--share-all-embeddings", "--lr", 0]
    command += ["--save-interval-updates", 1, "--patience", 4, "--save-dir", tmp_path]
    succeed(tmp_path, *command, "--max-update", 3)
    kept = load(tmp_path / "checkpoint_last.pt")["extra_state"]
    assert kept["early_stopping"] == {"best": kept["val_loss"], "num_runs": 2}
    assert "hasn't improved for last 4 runs" in succeed(tmp_path, *command, "--max-update", 9).out
    state = load(tmp_path / "checkpoint_last.pt")
    assert state["optimizer_history"][-1]["num_updates"] == 5
    log = succeed(tmp_path, *command, "--max-update", 7, "--reset-meters").out
    assert "hasn't improved" not in log  # what is the best is not known any more


def test_an_average_may_begin_when_a_training_resumes(corpus, tmp_path):
    command = ["fairseq-train", corpus.joined, *TRAIN, "--share-all-embeddings"]
    command += ["--disable-validation", "--save-dir", tmp_path]
    succeed(tmp_path, *command, "--max-update", 2)
    succeed(tmp_path, *command, "--max-update", 3, "--store-ema", "--ema-decay", 1.0)
    ema = load(tmp_path / "checkpoint_last.pt")["extra_state"]["ema"]
    assert ema.keys() == weights(tmp_path / "checkpoint_last.pt").keys()


@pytest.mark.parametrize(
    "options, said",
    [
        (["--optimizer", "sgd"], "was trained with the optimizer FairseqAdam, and this is SGD"),
        (["--finetune-from-model", "gone.pt", "--save-dir", "new"], "gone.pt: no such checkpoint"),
        (["--restore-file", "gone.pt"], "--restore-file gone.pt: no such checkpoint"),
    ],
)
def test_what_a_training_cannot_begin_with(corpus, trained, tmp_path, monkeypatch, options, said):
    monkeypatch.chdir(tmp_path)
    shutil.copy(trained.checkpoint, tmp_path / "checkpoint_last.pt")
    before = (tmp_path / "checkpoint_last.pt").read_bytes()
    command = ["fairseq-train", corpus.joined, *TRAIN, "--share-all-embeddings"]
    command += ["--max-update", 70, "--save-dir", tmp_path, *options]
    assert said in error_line(run(tmp_path, *command))
    assert (tmp_path / "checkpoint_last.pt").read_bytes() == before
