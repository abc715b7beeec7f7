"""A receipt holds as long as the setting and all files are what they were."""

import os

import pytest

from difformer_plugin.storage import receipts


@pytest.fixture
def work(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    for name in ("in/a", "in/b", "out/c", "teacher.pt"):
        (tmp_path / name).write_text(name)
    paths = [tmp_path / "in", tmp_path / "teacher.pt", tmp_path / "out", tmp_path / "absent"]
    receipt = tmp_path / "out" / "receipt.json"
    receipts.write(receipt, {"beam": 5, "pair": ("de", "en")}, paths, {"report": "done"})
    return tmp_path, receipt, paths


def test_it_holds_for_the_same_work(work):
    _, receipt, paths = work
    setting = {"beam": 5, "pair": ("de", "en")}
    assert receipts.read(receipt, setting, paths) == {"report": "done"}
    assert receipts.read(receipt, {**setting, "beam": 4}, paths) is None
    assert receipts.read(receipt, setting, paths[:-2]) is None


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "in" / "a").write_text("other"),
        lambda folder: os.utime(folder / "in" / "b", (1, 1)),
        lambda folder: (folder / "in" / "new").touch(),
        lambda folder: (folder / "out" / "c").unlink(),
        lambda folder: (folder / "absent").touch(),
        lambda folder: (folder / "out" / "receipt.json").write_text("{"),
        lambda folder: (folder / "out" / "receipt.json").write_text("[]"),
        lambda folder: (folder / "out" / "receipt.json").unlink(),
    ],
)
def test_it_does_not_hold_after_a_change(work, change):
    folder, receipt, paths = work
    change(folder)
    assert receipts.read(receipt, {"beam": 5, "pair": ("de", "en")}, paths) is None
