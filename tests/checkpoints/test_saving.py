"""Saving either completes or leaves the old file as it was."""

import errno
import io
import os
from concurrent.futures import ThreadPoolExecutor

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


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "link.pt").symlink_to("target.pt")
    for value in (1, 2):  # a link to nothing, and to a file
        save_atomically({"a": value}, tmp_path / "link.pt")
        assert (tmp_path / "link.pt").is_symlink()
        assert torch.load(tmp_path / "target.pt", weights_only=True) == {"a": value}
    assert sorted(os.listdir(tmp_path)) == ["link.pt", "target.pt"]


def test_a_pipe_is_written_to_and_stays(tmp_path):
    """As a device does: a file in the place of /dev/null would harm all other programs."""
    pipe = tmp_path / "pipe.pt"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as pool:
        written = pool.submit(pipe.read_bytes)
        save_atomically({"a": 1}, pipe)
        assert torch.load(io.BytesIO(written.result(timeout=60)), weights_only=True) == {"a": 1}
    assert pipe.is_fifo() and os.listdir(tmp_path) == ["pipe.pt"]
