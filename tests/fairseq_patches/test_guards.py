"""Checkpoints are read without running code, and a user's mistake is one line."""

import argparse
import zipfile

import numpy as np
import pytest
import torch
from torch.multiprocessing import ProcessRaisedException

from difformer_plugin.errors import UserError
from difformer_plugin.fairseq_patches import guards
from difformer_plugin.interop.conversion import load_original

guards.install()


def rename_numpy(path, module):
    """Rewrite a file of torch.save as another version of NumPy would have had it saved."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    own = np.zeros(1).__reduce__()[0].__module__
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            if name.endswith("/data.pkl"):
                for function in ("scalar", "_reconstruct"):
                    written = f"c{own}\n{function}\n".encode()  # the pickle's opcode GLOBAL
                    assert written in content
                    content = content.replace(written, f"c{module}\n{function}\n".encode())
            archive.writestr(name, content)


@pytest.mark.parametrize("module", ["numpy.core.multiarray", "numpy._core.multiarray"])
def test_numbers_of_either_numpy_are_read_without_running_code(tmp_path, module):
    """NumPy 2 has renamed what rebuilds its numbers and arrays."""
    if module == "numpy._core.multiarray" and np.lib.NumpyVersion(np.__version__) < "2.0.0":
        pytest.skip("NumPy 1 does not know the names of NumPy 2")
    path = tmp_path / "checkpoint.pt"
    state = {
        "args": argparse.Namespace(arch="difformer"),
        "model": {"weight": torch.arange(3.0)},
        "numbers": [np.float64(1.5), np.float32(2.5), np.int64(3)],
        "array": np.arange(4),
    }
    torch.save(state, path)
    rename_numpy(path, module)
    loaded = guards.load_weights_only(path)
    assert loaded["args"] == state["args"] and loaded["numbers"] == state["numbers"]
    assert torch.equal(loaded["model"]["weight"], state["model"]["weight"])
    assert loaded["array"].tolist() == [0, 1, 2, 3]


def test_other_names_of_numpy_stay_refused(tmp_path):
    path = tmp_path / "checkpoint.pt"
    torch.save({"numbers": [np.float64(1.5)], "array": np.arange(4)}, path)
    rename_numpy(path, "numpy.core.numeric")
    with pytest.raises(UserError, match=r"checkpoint\.pt is refused"):
        guards.load_weights_only(path)


def test_reading_the_authors_checkpoints_forbids_no_others(tmp_path):
    path = tmp_path / "checkpoint.pt"
    state = {"args": argparse.Namespace(latent_dim=8), "model": {}}
    torch.save(state, path)
    load_original(path)
    assert guards.load_weights_only(path) == state


# what a user sees of an error


@pytest.fixture
def show(capsys):
    """What the hook prints of an error, and the errors that it leaves to Python's own hook."""

    def show(error):
        left = []
        guards._guard_hook(lambda kind, error, traceback: left.append(error))(
            type(error), error, None
        )
        return capsys.readouterr().err, left

    return show


TRACEBACK = """

-- Process 1 terminated with the following error:
Traceback (most recent call last):
  File "spawn.py", line 96, in _wrap
    fn(i, *args)
  File "task.py", line 7, in build
    raise UserError("some text")
"""


def test_a_mistake_found_by_a_process_of_a_training_is_one_line(show):
    text = f"{TRACEBACK}difformer_plugin.errors.UserError: some text\n"
    assert show(ProcessRaisedException(text, 1, 4711)) == ("error: some text\n", [])


def test_another_error_of_a_process_of_a_training_keeps_its_traceback(show):
    error = ProcessRaisedException(f"{TRACEBACK}RuntimeError: some text\n", 1, 4711)
    assert show(error) == ("", [error])


def test_a_mistake_behind_another_error_is_one_line(show):
    error = RuntimeError("of hydra")
    error.__cause__ = UserError("some text")
    assert show(error) == ("error: some text\n", [])


def test_an_error_that_is_no_mistake_keeps_its_traceback(show):
    error = RuntimeError("a bug")
    assert show(error) == ("", [error])
