"""Downloads from a local server: resumed, checked by size, refused in one line."""

import multiprocessing
import re
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest

from difformer_plugin.data import recipe
from difformer_plugin.data.download import download, fetch
from difformer_plugin.data.recipe import Download
from difformer_plugin.errors import UserError
from difformer_plugin.storage.locks import lock_for_process

CONTENT = bytes(range(256)) * 4000  # a million bytes


@pytest.fixture
def server():
    """A server with /file. `ranges`: whether it supports them; `cut`: bytes before it hangs up."""
    state = SimpleNamespace(ranges=True, cut=None, tells_size=True, requests=[])

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            header = self.headers.get("Range")
            state.requests.append((self.path, header))
            if not self.path.startswith("/file"):
                return self.send_error(404)
            start = int(re.fullmatch(r"bytes=(\d+)-", header)[1]) if header else 0
            if header and state.ranges and start >= len(CONTENT):
                self.send_response(416)
                if state.tells_size:
                    self.send_header("Content-Range", f"bytes */{len(CONTENT)}")
                return self.end_headers()
            start = start if state.ranges else 0
            self.send_response(206 if header and state.ranges else 200)
            if state.tells_size:
                self.send_header("Content-Length", str(len(CONTENT) - start))
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(CONTENT)}/{len(CONTENT)}")
            self.end_headers()
            end = len(CONTENT) if state.cut is None else start + state.cut
            return self.wfile.write(CONTENT[start:end])

        def log_message(self, *unused):
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever)
    thread.start()
    state.url = f"http://127.0.0.1:{http.server_port}"
    yield state
    http.shutdown()
    thread.join()
    http.server_close()


@pytest.mark.parametrize("ranges", [True, False])
def test_an_interrupted_download_resumes(server, tmp_path, ranges):
    path = tmp_path / "file"
    server.cut, server.ranges = 300_000, ranges
    with pytest.raises(UserError, match=r"ended after 300,000 of 1,024,000 bytes; run the same"):
        fetch(f"{server.url}/file", path, 0, progress=False)
    assert not path.exists()
    server.cut = None
    fetch(f"{server.url}/file", path, len(CONTENT), progress=False)
    assert path.read_bytes() == CONTENT
    assert [header for _, header in server.requests] == [None, "bytes=300000-"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file"]


def test_a_complete_part_is_renamed(server, tmp_path):
    (tmp_path / "file.part").write_bytes(CONTENT)
    fetch(f"{server.url}/file", tmp_path / "file", 0, progress=False)
    assert (tmp_path / "file").read_bytes() == CONTENT


@pytest.mark.parametrize("expected", [len(CONTENT) - 1, len(CONTENT) + 1])
def test_a_file_of_another_size_is_refused_and_removed(server, tmp_path, expected):
    with pytest.raises(UserError, match=f"has 1,024,000 bytes, not {expected:,}"):
        fetch(f"{server.url}/file", tmp_path / "file", expected, progress=False)
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_unknown_size_is_refused(server, tmp_path):
    server.tells_size = False
    with pytest.raises(UserError, match="comes without its size"):
        fetch(f"{server.url}/file", tmp_path / "file", 0, progress=False)
    fetch(f"{server.url}/file", tmp_path / "file", len(CONTENT), progress=False)
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_part_of_a_different_file_is_discarded(server, tmp_path):
    """The server rejects the range and does not give the size: the download starts again."""
    server.tells_size = False
    (tmp_path / "file.part").write_bytes(b"x" * (len(CONTENT) + 9))
    fetch(f"{server.url}/file", tmp_path / "file", len(CONTENT), progress=False)
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_web_page_instead_of_an_archive_is_refused(server, tmp_path):
    with pytest.raises(UserError, match="is not an archive, but perhaps a web page"):
        fetch(f"{server.url}/file.tgz", tmp_path / "file.tgz", 0, progress=False)
    assert list(tmp_path.iterdir()) == []


def hold_part(path, held, release):
    with open(path, "ab") as file:
        lock_for_process(file, path)
        held.set()
        release.wait()


def test_a_second_process_is_refused(server, tmp_path):
    context = multiprocessing.get_context("fork")
    held, release = context.Event(), context.Event()
    arguments = (tmp_path / "file.part", held, release)
    other = context.Process(target=hold_part, args=arguments)
    other.start()
    held.wait()
    with pytest.raises(UserError, match=r"file\.part is in use by another process"):
        fetch(f"{server.url}/file", tmp_path / "file", 0, progress=False)
    release.set()
    other.join()
    fetch(f"{server.url}/file", tmp_path / "file", 0, progress=False)


def test_an_unpacked_archive_is_not_fetched(server, tmp_path):
    own = replace(
        recipe.load("wmt16-en-ro"), download=[Download(f"{server.url}/file", file="test.tgz")]
    )
    for role, lang in (("src", "en"), ("ref", "ro")):
        (tmp_path / f"newstest2016-enro-{role}.{lang}.sgm").write_text("")
    download(own, tmp_path, ("en", "ro"), progress=False)
    assert server.requests == []
    with pytest.raises(UserError, match="is not an archive"):
        download(own, tmp_path, ("ro", "en"), progress=False)


def test_refusals_are_one_line(server, tmp_path):
    with pytest.raises(UserError, match=r"/other: Not Found; run the same command again"):
        fetch(f"{server.url}/other", tmp_path / "file", 0, progress=False)
    server_url = server.url.replace("127.0.0.1", "nowhere.invalid")
    with pytest.raises(UserError, match="nowhere.invalid"):
        fetch(f"{server_url}/file", tmp_path / "file", 0, progress=False)


def test_only_missing_files_of_the_languages_are_fetched(server, tmp_path):
    items = [
        Download(f"{server.url}/file", len(CONTENT)),
        Download(f"{server.url}/file", file="german", languages=["de"]),
        Download(f"{server.url}/file", file="czech", languages=["cs"]),
    ]
    own = replace(recipe.load("multi30k"), download=items)
    (tmp_path / "german").write_bytes(b"is there")
    download(own, tmp_path, ("de", "en"), progress=False)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "german"]
    assert (tmp_path / "german").read_bytes() == b"is there"
    assert len(server.requests) == 1


def test_a_recipe_without_a_url_names_the_publisher(tmp_path):
    with pytest.raises(UserError, match="QQP cannot be fetched.*DiffuSeq.*put the files into"):
        download(recipe.load("qqp"), tmp_path, ("src", "tgt"))
