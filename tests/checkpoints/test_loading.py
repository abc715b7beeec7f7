"""Checkpoints load without running code from them."""

import argparse
import pickle
import zipfile

import numpy as np
import pytest
import torch

from difformer_plugin.checkpoints.loading import load_weights_only
from difformer_plugin.errors import UserError
from difformer_plugin.interop.conversion import load_original


def rename_numpy(path, module):
    """Rewrite a file of torch.save as if another version of NumPy had been installed."""
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


@pytest.mark.parametrize("memory_map", [False, True])
@pytest.mark.parametrize("module", ["numpy.core.multiarray", "numpy._core.multiarray"])
def test_numbers_of_numpy_1_and_2_load(tmp_path, module, memory_map):
    """NumPy 2 has renamed the functions that rebuild its numbers and arrays."""
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
    loaded = load_weights_only(path, memory_map)
    assert loaded["args"] == state["args"] and loaded["numbers"] == state["numbers"]
    assert torch.equal(loaded["model"]["weight"], state["model"]["weight"])
    assert loaded["array"].tolist() == [0, 1, 2, 3]


def test_other_functions_of_numpy_stay_refused(tmp_path):
    path = tmp_path / "checkpoint.pt"
    torch.save({"numbers": [np.float64(1.5)], "array": np.arange(4)}, path)
    rename_numpy(path, "numpy.core.numeric")
    with pytest.raises(UserError, match=r"checkpoint\.pt is refused"):
        load_weights_only(path)


def test_the_format_before_zip_files_loads_with_a_memory_map_too(tmp_path):
    path = tmp_path / "checkpoint.pt"
    torch.save({"model": {"weight": torch.arange(3.0)}}, path, _use_new_zipfile_serialization=False)
    loaded = load_weights_only(path, memory_map=True)
    assert torch.equal(loaded["model"]["weight"], torch.arange(3.0))


def test_reading_the_authors_checkpoints_forbids_no_others(tmp_path):
    path = tmp_path / "checkpoint.pt"
    state = {"args": argparse.Namespace(latent_dim=8), "model": {}}
    torch.save(state, path)
    load_original(path)
    assert load_weights_only(path) == state


def test_errors_are_also_those_that_programs_expect(tmp_path):
    with pytest.raises(UserError, match="no such checkpoint") as caught:
        load_weights_only(tmp_path / "checkpoint.pt")
    assert isinstance(caught.value, FileNotFoundError)
    (tmp_path / "checkpoint.pt").write_text("text")
    with pytest.raises(UserError, match="a file of another kind") as caught:
        load_weights_only(tmp_path / "checkpoint.pt")
    assert isinstance(caught.value, pickle.UnpicklingError)
