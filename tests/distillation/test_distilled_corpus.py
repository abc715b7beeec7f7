"""A distilled data-bin's folder: all at once or not at all, whatever stops its being written."""

import json

import pytest

from difformer_plugin.distillation.corpus import (
    MANIFEST,
    building,
    check_out,
    copy_rest,
    read_shards,
    work_folder,
)
from difformer_plugin.errors import UserError

WANTED = {"setting": {"--beam": 5}}


def test_what_stops_half_way_leaves_nothing_in_place(tmp_path):
    out = tmp_path / "out"
    with pytest.raises(RuntimeError), building(out) as folder:
        (folder / "half").write_text("of it")
        raise RuntimeError
    assert not out.exists() and check_out(out, WANTED) is None
    out.mkdir()  # an empty folder is as good as none
    with building(out) as folder:
        assert not list(folder.iterdir())
        (folder / MANIFEST).write_text(json.dumps(WANTED))
        assert not list(out.iterdir())
    assert [path.name for path in out.iterdir()] == [MANIFEST]
    assert not work_folder(out).exists()


def test_what_a_kill_after_the_last_step_leaves_is_cleared(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / MANIFEST).write_text(json.dumps(WANTED))
    work_folder(out).mkdir()
    (work_folder(out) / "journal").write_text("done with")
    assert check_out(out, WANTED) == WANTED
    assert not work_folder(out).exists()


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"setting": 3}', "nonsense"])
def test_a_damaged_manifest(tmp_path, text):
    (tmp_path / MANIFEST).write_text(text)
    with pytest.raises(UserError, match="is damaged"):
        check_out(tmp_path, WANTED)


def test_a_file_is_not_overwritten(tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(UserError, match="holds other things"):
        check_out(tmp_path / "out", WANTED)


def test_the_rest_is_copied_but_not_what_belongs_to_the_raw_targets(tmp_path):
    data, out = tmp_path / "data", tmp_path / "out"
    data.mkdir(), out.mkdir()
    kept = {"dict.de.txt", "valid.de-en.de.bin", "train.de-fr.fr.bin", "trainer.de-en.de.bin"}
    for name in kept | {"train.de-en.de.bin", "train.align.de-en.idx", MANIFEST}:
        (data / name).write_text(name)
    copy_rest(data, out, "train.de-en", "train")
    assert {path.name for path in out.iterdir()} == kept
    assert all((out / name).read_text() == name for name in kept)


def test_merging_refuses_what_does_not_go_together(tmp_path):
    """One line for each, before anything is written."""

    def shard(name, number, **setting):
        setting = {"data": "d", "teacher": "t", "--beam": 5, "--shard": number} | setting
        (tmp_path / name).mkdir()
        (tmp_path / name / MANIFEST).write_text(json.dumps({"setting": setting, "tally": {}}))
        return tmp_path / name

    first, second, third = (shard(str(i), f"{i}/3") for i in range(3))
    found = [manifest["folder"] for manifest in read_shards([third, first, second])]
    assert found == [first, second, third]
    (tmp_path / "late.unfinished").mkdir()
    for folders, said in (
        ([first, third], "missing: 1/3"),
        ([first, second, third, shard("again", "1/3")], "both shard 1/3"),
        ([shard("whole", "0/1")], "nothing to do"),
        ([first, tmp_path], "no finished shard: name the --out"),
        ([first, tmp_path / "late"], "no finished shard: run its command again"),
        ([first, shard("other", "1/3", data="e")], "other data"),
        ([first, shard("teacher", "1/3", teacher="u")], "another teacher"),
        ([first, shard("beam", "1/3", **{"--beam": 4})], "--beam 4 instead of 5"),
        ([first, shard("of 4", "1/4")], "shard 1/4"),
    ):
        with pytest.raises(UserError, match=said):
            read_shards(folders)
