"""Averaged weights are found in a checkpoint, or the checkpoint is refused."""

import pytest
import torch

from difformer_plugin.checkpoints.averaging import Checkpoint, average
from difformer_plugin.checkpoints.ema import ema_weights, load_ema
from difformer_plugin.errors import UserError


def save(path, model, ema, updates=1):
    extra = {"train_iterator": {"epoch": 1}} | ({} if ema is None else {"ema": ema})
    history = [{"num_updates": updates}]
    torch.save({"model": model, "extra_state": extra, "optimizer_history": history}, path)
    return Checkpoint(path, updates, "loss", False, None)


def test_a_model_gets_the_averaged_weights(build, tmp_path):
    model = build()
    ema = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    ema["denoiser.project_in_dim.weight"] += 1
    save(tmp_path / "a.pt", model.state_dict(), ema)
    model.derived["something made of the weights"] = 1
    load_ema(model, tmp_path / "a.pt")
    assert not model.derived
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, ema[name]), name


@pytest.mark.parametrize("extra", [{}, {"extra_state": None}, {"extra_state": {"ema": {}}}])
def test_a_checkpoint_without_them_is_refused_in_one_line(extra):
    with pytest.raises(UserError, match="some.pt has no exponential moving average") as error:
        ema_weights({"model": {}, **extra}, "some.pt")
    assert "\n" not in str(error.value)


def test_averages_can_be_averaged(tmp_path):
    states = [{"w": torch.tensor([float(i)])} for i in range(4)]
    chosen = [save(tmp_path / f"{i}.pt", states[i], states[i + 2], i + 1) for i in (0, 1)]
    assert average(chosen)["model"]["w"] == 0.5
    assert average(chosen, use_ema=True)["model"]["w"] == 2.5
    chosen.append(save(tmp_path / "2.pt", states[2], None, 3))
    with pytest.raises(UserError, match="2.pt has no exponential moving average"):
        average(chosen, use_ema=True)
