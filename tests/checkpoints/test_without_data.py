"""Models load without their data, if their embeddings are diffused."""

from dataclasses import asdict, is_dataclass

import pytest
import torch

import difformer_plugin
from difformer_plugin.checkpoints.without_data import load_without_data
from difformer_plugin.errors import UserError

difformer_plugin.register()


@pytest.fixture
def save(tmp_path):
    """A function that saves a checkpoint as fairseq does, and returns its path."""

    def save(name, cfg, state):
        cfg = asdict(cfg) if is_dataclass(cfg) else dict(cfg)
        checkpoint = {
            "args": None,
            "cfg": {"model": {**cfg, "_name": name}},
            "model": state,
            "optimizer_history": [
                {"optimizer_name": "adam", "lr_scheduler_state": {}, "num_updates": 1}
            ],
            "extra_state": {"train_iterator": {"epoch": 1}},
        }
        torch.save(checkpoint, tmp_path / "checkpoint.pt")
        return tmp_path / "checkpoint.pt"

    return save


@pytest.mark.parametrize("name", ["difformer", "difformer_iwslt_de_en"])
def test_a_model_and_its_architectures_load(build, save, name):
    model = build()
    loaded = load_without_data(save(name, model.cfg, model.state_dict()))
    for key, weight in model.named_parameters():
        assert torch.equal(loaded.get_parameter(key), weight), key


def test_models_without_diffused_embeddings_are_refused(build, build_discrete, save):
    model = build_discrete()
    refused = "not a checkpoint of a model that diffuses embeddings.*--arch difformer"
    with pytest.raises(UserError, match=refused):
        load_without_data(save("discrete_diffusion", model.cfg, model.state_dict()))
    state = {f"{side}.embed_tokens.weight": torch.zeros(5, 3) for side in ("encoder", "denoiser")}
    with pytest.raises(UserError, match=refused):
        load_without_data(save("transformer", {"encoder_layers": 1}, state))
    state = build().state_dict()
    del state["denoiser.embed_tokens.weight"]
    with pytest.raises(UserError, match=refused):
        load_without_data(save("difformer", build().cfg, state))
