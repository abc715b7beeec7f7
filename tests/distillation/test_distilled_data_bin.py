"""The folder of a distilled data-bin: it appears complete or not at all."""

import json

import pytest

from difformer_plugin.distillation.distilled_data_bin import (
    MANIFEST,
    building,
    copy_rest,
    finished_manifest,
    work_folder,
)
from difformer_plugin.errors import UserError

WANTED = {"setting": {"--beam": 5}}


def test_an_interrupted_write_leaves_nothing(tmp_path):
    out = tmp_path / "out"
    with pytest.raises(RuntimeError), building(out) as folder:
        (folder / "half").write_text("of it")
        raise RuntimeError
    assert not out.exists() and finished_manifest(out, WANTED) is None
    out.mkdir()  # an empty folder may exist
    with building(out) as folder:
        assert not list(folder.iterdir())
        (folder / MANIFEST).write_text(json.dumps(WANTED))
        assert not list(out.iterdir())
    assert [path.name for path in out.iterdir()] == [MANIFEST]
    assert not work_folder(out).exists()


def test_the_work_folder_left_by_a_late_kill_is_removed(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / MANIFEST).write_text(json.dumps(WANTED))
    work_folder(out).mkdir()
    (work_folder(out) / "journal").write_text("done with")
    assert finished_manifest(out, WANTED) == WANTED
    assert not work_folder(out).exists()


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"setting": 3}', "nonsense"])
def test_a_damaged_manifest_is_refused(tmp_path, text):
    (tmp_path / MANIFEST).write_text(text)
    with pytest.raises(UserError, match="is damaged"):
        finished_manifest(tmp_path, WANTED)


def test_a_file_is_not_overwritten(tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(UserError, match="holds other files"):
        finished_manifest(tmp_path / "out", WANTED)


def test_everything_but_the_distilled_split_is_copied(tmp_path):
    data, out = tmp_path / "data", tmp_path / "out"
    data.mkdir(), out.mkdir()
    kept = {"dict.de.txt", "valid.de-en.de.bin", "train.de-fr.fr.bin", "trainer.de-en.de.bin"}
    for name in kept | {"train.de-en.de.bin", "train.align.de-en.idx", MANIFEST}:
        (data / name).write_text(name)
    copy_rest(data, out, ["train.de-en"])
    assert {path.name for path in out.iterdir()} == kept
    assert all((out / name).read_text() == name for name in kept)
