"""Which file the averaged weights of a model come from."""

from types import SimpleNamespace

import pytest
import torch

from difformer_plugin.fairseq_patches import ema_loading

TRAINED = SimpleNamespace(cfg=SimpleNamespace(use_ema=True))


@pytest.mark.parametrize("suffix", ["", "-b"])
def test_the_average_is_of_the_file_that_the_weights_are_of(build, tmp_path, suffix):
    """With a suffix, fairseq reads a file of another name."""
    model = build()
    for number, name in enumerate(("a.pt", "a-b.pt")):
        ema = {key: value.clone() for key, value in model.state_dict().items()}
        ema["denoiser.project_in_dim.weight"].fill_(number)
        torch.save({"model": {}, "extra_state": {"ema": ema}}, tmp_path / name)

    def load(filenames, arg_overrides, task, strict, suffix):
        return [model], None, TRAINED

    path = str(tmp_path / "a.pt")
    ema_loading._with_ema(load)([path], {"use_ema": True}, suffix=suffix)
    assert (model.denoiser.project_in_dim.weight == bool(suffix)).all()


@pytest.mark.parametrize(
    "overrides, given, asked",
    [
        (None, None, False),
        ({"use_ema": True}, None, True),
        (None, TRAINED, True),
        ({"use_ema": False}, TRAINED, False),
    ],
)
def test_the_command_decides_and_not_the_training(build, monkeypatch, overrides, given, asked):
    """A task that is set up from the checkpoint has the options of its training."""
    model, loaded = build(), []
    monkeypatch.setattr(ema_loading, "load_ema", lambda *arguments: loaded.append(arguments))
    load = ema_loading._with_ema(lambda *unused: ([model], None, given or TRAINED))
    load(["a.pt"], overrides, given)
    assert loaded == [(model, "a.pt")] * asked
