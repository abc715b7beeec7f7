"""Merging shards: only those of one distillation, each exactly once."""

import json

import pytest

from difformer_plugin.distillation.distilled_data_bin import MANIFEST
from difformer_plugin.distillation.shards import read_shards
from difformer_plugin.errors import UserError


def test_shards_that_do_not_belong_together_are_refused(tmp_path):
    """With one line each, before anything is written."""

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
        ([first, tmp_path], "no finished shard: give the --out"),
        ([first, tmp_path / "late"], "no finished shard: run its command again"),
        ([first, shard("other", "1/3", data="e")], "other data"),
        ([first, shard("teacher", "1/3", teacher="u")], "another teacher"),
        ([first, shard("beam", "1/3", **{"--beam": 4})], "--beam 4 instead of 5"),
        ([first, shard("of 4", "1/4")], "shard 1/4"),
    ):
        with pytest.raises(UserError, match=said):
            read_shards(folders)
