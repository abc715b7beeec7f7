"""Saving either completes or leaves the old file as it was."""

import errno
import os

import pytest
import torch

from difformer_plugin.checkpoints.saving import save_atomically
from difformer_plugin.errors import UserError


def test_what_is_saved_is_loaded(tmp_path):
    save_atomically({"weight": torch.arange(3.0)}, tmp_path / "checkpoint.pt")
    loaded = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert torch.equal(loaded["weight"], torch.arange(3.0))
    assert os.listdir(tmp_path) == ["checkpoint.pt"]


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    (tmp_path / "checkpoint.pt").write_bytes(b"old")

    def fill_up(checkpoint, file):
        file.write(b"new")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(torch, "save", fill_up)
    with pytest.raises(UserError, match="No space left on device.*free some space") as caught:
        save_atomically({}, tmp_path / "checkpoint.pt")
    assert isinstance(caught.value, OSError)
    assert os.listdir(tmp_path) == ["checkpoint.pt"]
    assert (tmp_path / "checkpoint.pt").read_bytes() == b"old"


def test_an_interruption_leaves_the_old_file_alone(tmp_path, monkeypatch):
    (tmp_path / "checkpoint.pt").write_bytes(b"old")

    def interrupted(checkpoint, file):
        file.write(b"new")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_atomically({}, tmp_path / "checkpoint.pt")
    assert os.listdir(tmp_path) == ["checkpoint.pt"]
    assert (tmp_path / "checkpoint.pt").read_bytes() == b"old"


def test_a_folder_that_does_not_exist(tmp_path):
    with pytest.raises(UserError, match="name a file in a folder that exists"):
        save_atomically({}, tmp_path / "nowhere" / "checkpoint.pt")
