"""Settings: shards, and how two settings differ."""

import pytest

from difformer_plugin.distillation.settings import difference, parse_shard
from difformer_plugin.errors import UserError


def test_differences_in_words():
    ours = {"data": "a", "teacher": "b", "--beam": 5}
    assert difference(ours, ours) == ""
    assert difference({**ours, "teacher": "c", "--beam": 4}, ours) == (
        "another teacher, --beam 4 instead of 5"
    )
    assert difference({**ours, "data": "c"}, ours) == "other data"


def test_shards():
    assert parse_shard("0/1") == (0, 1) and parse_shard("02/03") == (2, 3)
    for wrong in ("3/3", "x", "-1/3", "1/0", "0"):
        with pytest.raises(UserError, match="give I/N"):
            parse_shard(wrong)
