"""Atomic files: the whole new content, or the old file untouched."""

import os
import threading

import pytest

from difformer_plugin.errors import UserError
from difformer_plugin.storage.files import atomic_path, atomic_text, digest_files, read_object


def test_a_file_appears_when_the_block_succeeds(tmp_path):
    path = tmp_path / "new" / "file.txt"
    with atomic_text(path) as handle:
        handle.write("ä\n")
        assert not path.exists()
    assert path.read_bytes() == "ä\n".encode()
    assert list(path.parent.iterdir()) == [path]


def test_a_failure_leaves_the_old_file_and_no_temporary_one(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic_text(path) as handle:
        handle.write("new")
        raise RuntimeError
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_the_temporary_name_keeps_the_suffix(tmp_path):
    with atomic_path(tmp_path / "plot.png") as temporary:
        assert temporary.endswith(".png")
        open(temporary, "w").close()


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "file").write_text("old")
    (tmp_path / "link").symlink_to("file")
    with atomic_text(tmp_path / "link") as handle:
        handle.write("new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "file").read_text() == "new"


def test_a_pipe_is_written_to_and_stays(tmp_path):
    path, found = tmp_path / "pipe", []
    os.mkfifo(path)
    reader = threading.Thread(target=lambda: found.append(path.read_text()))
    reader.start()
    with atomic_text(path) as handle:
        handle.write("text")
    reader.join(10)
    assert found == ["text"] and path.is_fifo()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b"[" * 100_000])
def test_a_damaged_object_is_one_line(tmp_path, content):
    path = tmp_path / "state.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"state\.json is damaged: remove it"):
        read_object(path, "remove it")


def test_the_digest_depends_on_contents_and_order_but_not_on_names(tmp_path):
    for name, text in (("a", "one"), ("b", "two"), ("c", "one")):
        (tmp_path / name).write_text(text)
    a, b, c = (tmp_path / name for name in "abc")
    assert digest_files([a, b]) == digest_files([c, b]) != digest_files([b, a])
    assert len(digest_files([a])) == 32
