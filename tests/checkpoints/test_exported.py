"""Weights as safetensors: all names, shared tensors, dictionaries of tensors, and damaged files."""

import json

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from difformer_plugin.checkpoints.exported import read_exported, read_weights, write_weights
from difformer_plugin.checkpoints.loading import load_weights_only
from difformer_plugin.errors import UserError


@pytest.fixture
def state():
    table = torch.randn(5, 3)
    return {
        "a.table": table,
        "b.table": table,  # shared
        "b.rows": table[:2],  # a part of it
        "turned": table.t(),
        "half": torch.randn(3).half(),
        "empty": torch.zeros(0),
        "mark": torch.tensor([2**47, 3]),
        "factor._extra_state": torch.tensor([4.0, 0.0], dtype=torch.float64),
        "chain._extra_state": {"edges": torch.tensor([[1, 2]]), "weights": torch.randn(1)},
        "none._extra_state": {},
    }


def same(one, other):
    if isinstance(one, dict):
        return set(one) == set(other) and all(same(one[key], other[key]) for key in one)
    return one.dtype == other.dtype and torch.equal(one, other)


def test_a_state_dict_comes_back_as_it_was(state, tmp_path):
    path = tmp_path / "model.safetensors"
    write_weights(state, path)
    assert same(read_weights(path), state)
    (tmp_path / "usual").touch()
    assert path.stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_a_full_disk(state, tmp_path, monkeypatch):
    def fill_up(tensors, path, metadata):
        raise SafetensorError("I/O error: No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", fill_up)
    with pytest.raises(UserError, match=r"model\.safetensors could not .*No space.*free some"):
        write_weights(state, tmp_path / "model.safetensors")


def test_other_programs_read_the_file_and_shared_tensors_are_in_it_once(state, tmp_path):
    path = tmp_path / "model.safetensors"
    write_weights(state, path)
    stored = load_file(path)
    assert "b.table" not in stored and torch.equal(stored["a.table"], state["a.table"])
    assert torch.equal(stored["chain._extra_state.edges"], torch.tensor([[1, 2]]))


def test_an_exported_model_is_read_as_a_checkpoint(state, tmp_path):
    path = tmp_path / "model.safetensors"
    write_weights(state, path)
    with pytest.raises(UserError, match=r"config\.json: no such file; copy the whole exported"):
        read_exported(path)
    (tmp_path / "config.json").write_text('{"cfg": {}}', "utf-8")
    with pytest.raises(UserError, match=r"config\.json is damaged"):
        read_exported(path)
    config = {"cfg": {"task": {"data": "."}}, "training": {"num_updates": 7}}
    (tmp_path / "config.json").write_text(json.dumps(config), "utf-8")
    loaded = load_weights_only(path, memory_map=True)
    assert same(loaded["model"], state) and loaded["cfg"] == config["cfg"]
    assert loaded["optimizer_history"][-1]["num_updates"] == 7
    assert loaded["last_optimizer_state"] is None


def test_damaged_and_foreign_files_are_one_line(state, tmp_path):
    path = tmp_path / "model.safetensors"
    write_weights(state, path)
    content = path.read_bytes()
    for damaged in (b"", content[:100], content[:-5], b"x" * 50):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match="is not a readable safetensors file"):
            read_weights(path)
    save_file({"a": torch.zeros(2)}, path)
    with pytest.raises(UserError, match="was not written by `difformer export`"):
        read_weights(path)
    with pytest.raises(UserError, match="no such checkpoint"):
        load_weights_only(tmp_path / "none.safetensors")
    with pytest.raises(UserError, match="x is not a tensor"):
        write_weights({"x": 3}, path)
