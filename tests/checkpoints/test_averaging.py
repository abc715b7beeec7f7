"""Averages of checkpoints, against the mean by hand, and which checkpoints are chosen."""

import os

import pytest
import torch

from difformer_plugin.checkpoints.averaging import (
    average,
    choose_best,
    choose_newest,
    list_checkpoints,
)
from difformer_plugin.errors import UserError
from difformer_plugin.families.embeddings.rescaling import KEY as RESCALING


def weights(seed):
    """A state dict with all that may be in one."""
    generator = torch.Generator().manual_seed(seed)
    table = torch.randn(5, 3, generator=generator)
    return {
        "encoder.embed_tokens.weight": table,
        "decoder.embed_tokens.weight": table,
        "decoder.half": torch.randn(4, generator=generator).half(),
        "decoder.version": torch.tensor([seed]),
        RESCALING: torch.tensor([float(seed), 0.15], dtype=torch.float64),
        "dictionary_version": torch.tensor([11, 12]),
    }


def save(folder, names, updates, metric, *, maximize=False, name="loss", model=None):
    """A checkpoint as fairseq writes it, under one or several names."""
    cfg = {"best_checkpoint_metric": name, "maximize_best_checkpoint_metric": maximize}
    state = {
        "args": None,
        "cfg": {"checkpoint": cfg},
        "model": weights(updates) if model is None else model,
        "optimizer_history": [{"num_updates": updates, "optimizer_name": "Adam"}],
        "last_optimizer_state": {"m": torch.zeros(100)},
        "extra_state": {"val_loss": metric, "train_iterator": {"epoch": 7}},
        "task_state": {},
    }
    for each in names.split():
        torch.save(state, folder / f"checkpoint{each}.pt")


@pytest.fixture
def folder(tmp_path):
    """Four checkpoints, of which one has two names more, and one no metric."""
    save(tmp_path, "1", 100, 3.0)
    save(tmp_path, "2 _best", 200, 1.0)
    save(tmp_path, "3", 300, 2.0)
    save(tmp_path, "_4_350", 350, None)
    save(tmp_path, ".best_loss_1.5000 _last", 400, 1.5)
    torch.save({"model": {}}, tmp_path / "mean.pt")  # not fairseq's name
    return tmp_path


def updates(chosen):
    return [checkpoint.updates for checkpoint in chosen]


def test_each_update_counts_once(folder):
    found = list_checkpoints(folder)
    assert updates(found) == [400, 350, 300, 200, 100]
    assert found[3].path.name == "checkpoint2.pt"
    assert updates(choose_newest(found, 3, folder)) == [400, 350, 300]


def test_the_best_by_either_direction(folder):
    assert updates(choose_best(list_checkpoints(folder), 3, folder)) == [200, 400, 300]
    for number, metric in ((1, 20.0), (2, 30.0), (3, 25.0)):
        save(folder, str(number), 100 * number, metric, maximize=True, name="bleu")
    for stale in ("_best", "_4_350", "_last", ".best_loss_1.5000"):
        (folder / f"checkpoint{stale}.pt").unlink()
    save(folder, "4", 400, float("nan"), maximize=True, name="bleu")
    assert updates(choose_best(list_checkpoints(folder), 2, folder)) == [200, 300]
    with pytest.raises(UserError, match="has 3 checkpoints with a metric, not 4"):
        choose_best(list_checkpoints(folder), 4, folder)


def test_the_mean_is_that_by_hand(folder):
    chosen = choose_newest(list_checkpoints(folder), 3, folder)
    result = average(chosen)
    states = [weights(number) for number in (400, 350, 300)]
    for name, tensor in result["model"].items():
        assert tensor.dtype == states[0][name].dtype
        if name.startswith(("encoder.embed", "decoder.embed", "decoder.half")):
            expected = sum(state[name].double() for state in states) / 3
            assert torch.equal(tensor, expected.to(tensor.dtype))
        else:
            assert torch.equal(tensor, states[0][name])  # the newest's
    assert result["model"].keys() == states[0].keys()
    shared = [result["model"][f"{side}.embed_tokens.weight"] for side in ("encoder", "decoder")]
    assert shared[0].data_ptr() == shared[1].data_ptr()
    assert result["last_optimizer_state"] is None
    assert result["extra_state"]["mean_of"] == [
        {"file": "checkpoint.best_loss_1.5000.pt", "updates": 400, "loss": 1.5},
        {"file": "checkpoint_4_350.pt", "updates": 350, "loss": None},
        {"file": "checkpoint3.pt", "updates": 300, "loss": 2.0},
    ]


def test_halves_are_added_up_exactly(tmp_path):
    """In float16 the sum of 2048 and 1 is 2048, and the mean of 1,024 times each would be off."""
    for number, value in enumerate((2048.0, 1.0, 1.0, 2.0)):
        save(tmp_path, str(number), number, 1.0, model={"w": torch.tensor([value]).half()})
    mean = average(choose_newest(list_checkpoints(tmp_path), 4, tmp_path))
    assert mean["model"]["w"].item() == 513.0


def test_too_few(folder):
    with pytest.raises(UserError, match="has 5 checkpoints, not 6.*--keep-last-epochs 6"):
        choose_newest(list_checkpoints(folder), 6, folder)
    with pytest.raises(UserError, match="no such folder"):
        list_checkpoints(folder / "nowhere")


def test_different_metrics_are_not_compared(folder):
    save(folder, "9", 900, 30.0, maximize=True, name="bleu")
    with pytest.raises(UserError, match=r"different metrics \(bleu \(max\), loss \(min\)\)"):
        choose_best(list_checkpoints(folder), 2, folder)


@pytest.mark.parametrize(
    "change, said",
    [
        ({"decoder.half": torch.zeros(5).half()}, r"decoder.half is \(5,\) and \(4,\)"),
        ({"decoder.more": torch.zeros(1)}, "decoder.more"),
        ({"decoder.half": "text"}, r"decoder.half is None and \(4,\)"),
        ({"dictionary_version": torch.tensor([11, 13])}, "dictionaries"),
        ({"decoder.half": torch.full((4,), torch.nan).half()}, "NaN .decoder.half"),
    ],
)
def test_different_models(folder, change, said):
    save(folder, "3", 300, 2.0, model=weights(300) | change)
    with pytest.raises(UserError, match=said):
        average(choose_newest(list_checkpoints(folder), 3, folder))


class Evil:
    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return os.mkdir, (str(self.trace),)


def test_code_in_a_checkpoint_is_refused(folder, tmp_path):
    torch.save({"model": Evil(tmp_path / "trace")}, folder / "checkpoint5.pt")
    with pytest.raises(UserError, match="checkpoint5.pt is refused"):
        list_checkpoints(folder)
    assert not (tmp_path / "trace").exists()
    torch.save({"model": {}}, folder / "checkpoint5.pt")
    with pytest.raises(UserError, match="checkpoint5.pt is not a checkpoint of fairseq-train"):
        list_checkpoints(folder)
    (folder / "checkpoint5.pt").write_bytes(b"text")
    with pytest.raises(UserError, match="not a readable checkpoint"):
        list_checkpoints(folder)
