"""Translating streams and files, with a translator that turns letters round."""

import io
import multiprocessing
import random
import time

import pytest

from difformer_plugin.errors import UserError
from difformer_plugin.translation import files

LINES = [f"line {n}" if n % 7 else "" for n in range(1, 398)]
KEY = {"--input": "1", "--seed": 1}


def backwards(lines):
    return [[(-1.5, text[::-1]), (-2.0, text)] for _, text in lines]


def numbered(texts=LINES):
    return enumerate(texts, start=1)


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "in.txt"
    path.write_text("\n".join(LINES), "utf-8")  # without a last newline
    return path


EXPECTED = "".join(f"{text[::-1]}\n" for text in LINES)


@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_a_stream_has_a_line_for_each_line(chunk):
    output = io.BytesIO()
    assert files.translate_stream(backwards, numbered(), output, chunk) == len(LINES)
    assert output.getvalue().decode() == EXPECTED


def test_a_stream_is_written_as_it_comes():
    """Each chunk is out before the next is read."""
    output, seen = io.BytesIO(), []

    def lines():
        for line in numbered(["ab", "cd", "ef"]):
            seen.append(output.getvalue().count(b"\n"))
            yield line

    files.translate_stream(backwards, lines(), output, 1)
    assert seen == [0, 1, 2]


def test_several_translations_carry_the_number_of_their_line():
    output = io.BytesIO()
    files.translate_stream(backwards, numbered(["ab", ""]), output, 5, nbest=2)
    assert output.getvalue().decode() == (
        "1\t-1.5000\tba\n1\t-2.0000\tab\n2\t-1.5000\t\n2\t-2.0000\t\n"
    )


def test_a_file_appears_when_it_is_complete(source, tmp_path):
    output = tmp_path / "out.txt"
    seen = []

    def watch(lines):
        seen.append(output.exists())
        return backwards(lines)

    assert files.translate_file(watch, source, output, KEY, 50) == len(LINES)
    assert output.read_text("utf-8") == EXPECTED
    assert not any(seen) and sorted(p.name for p in tmp_path.iterdir()) == ["in.txt", "out.txt"]


def test_an_empty_file_gives_an_empty_file(tmp_path):
    (tmp_path / "in").touch()
    assert files.translate_file(backwards, tmp_path / "in", tmp_path / "out", KEY, 5) == 0
    assert (tmp_path / "out").read_bytes() == b""


def slowly(source, output):
    def translate(lines):
        time.sleep(0.02)
        return backwards(lines)

    files.run_pass.__globals__["SAVE_SECONDS"] = 0.0
    files.translate_file(translate, source, output, KEY, 5)


def test_a_killed_run_goes_on_and_gives_the_same(source, tmp_path):
    output, draw, done = tmp_path / "out.txt", random.Random(1), [0]
    context = multiprocessing.get_context("fork")
    while True:
        process = context.Process(target=slowly, args=(source, output))
        process.start()
        process.join(draw.uniform(0.3, 0.8) * (1 + len(done) / 10))
        if process.exitcode is not None:
            break
        process.kill()
        process.join()
        assert not output.exists() or output.read_text("utf-8") == EXPECTED
        done.append(max(files.lines_done(output), done[-1]))
    assert process.exitcode == 0 and output.read_text("utf-8") == EXPECTED
    assert done == sorted(done) and len(set(done)) > 2


def test_another_run_does_not_go_on_with_it(source, tmp_path):
    def stop(lines):
        raise KeyboardInterrupt

    output = tmp_path / "out.txt"
    with pytest.raises(KeyboardInterrupt):
        files.translate_file(stop, source, output, KEY, 5)
    with pytest.raises(UserError, match=r"out\.txt\.translating is of a run with another --seed:"):
        files.translate_file(backwards, source, output, {**KEY, "--seed": 2}, 5)
    files.translate_file(backwards, source, output, KEY, 5)
    assert output.read_text("utf-8") == EXPECTED


@pytest.mark.parametrize("removed", [(), ("key.json",), ("translate.json", "lock")])
def test_a_run_that_was_killed_while_it_cleaned_up(source, tmp_path, monkeypatch, removed):
    output = tmp_path / "out.txt"

    def stop(folder):
        for name in removed:
            (folder / name).unlink()
        raise KeyboardInterrupt

    monkeypatch.setattr(files.shutil, "rmtree", stop)
    with pytest.raises(KeyboardInterrupt):
        files.translate_file(backwards, source, output, KEY, 5)
    monkeypatch.undo()
    assert output.read_text("utf-8") == EXPECTED
    files.translate_file(backwards, source, output, KEY, 5)
    assert output.read_text("utf-8") == EXPECTED
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.txt", "out.txt"]
