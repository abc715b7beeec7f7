"""What `difformer distill` refuses, before anything is written."""

import os

import pytest
import torch
from distillation import SEARCH, distil_with
from harness import error_line, run

from difformer_plugin.cli.main import main
from difformer_plugin.storage.journal import Journal


@pytest.fixture(scope="module")
def distilled(corpus, teacher, tmp_path_factory):
    """The training set, distilled in one run; its folder, and what was printed."""
    return distil_with(tmp_path_factory.mktemp("distilled"), teacher=teacher, data=corpus.joined)


class Evil:
    def __reduce__(self):
        return os.mkdir, ("evil-was-here",)


def test_bad_input_is_refused(corpus, teacher, other_teacher, distilled, tmp_path):
    out, evil = tmp_path / "out", tmp_path / "evil.pt"
    torch.save({"model": Evil()}, evil)

    def refuse(*options, data=corpus.joined, teacher=teacher, out=out):
        command = ["distill", data, "--teacher", teacher, "--out", out, *SEARCH, *options]
        line = error_line(run(tmp_path, "difformer", *command))
        assert not (tmp_path / "out").exists()
        return line

    assert "no such data folder" in refuse(data=tmp_path / "nowhere")
    assert "no such checkpoint" in refuse(teacher=tmp_path / "nowhere.pt")
    line = refuse(teacher=other_teacher)
    assert "dictionary" in line and str(other_teacher) in line and str(corpus.joined) in line
    assert "refused" in refuse(teacher=evil)
    assert not os.path.exists("evil-was-here")
    assert "no such file" in refuse("--split", "other")
    assert "only 1 batches" in refuse("--shard", "1/2", "--split", "test")
    assert "holds other files" in refuse(out=tmp_path)
    assert "--batch-size 4 instead of 256" in refuse(out=distilled[0])
    assert "--post-process" in refuse("--post-process", "nonsense")
    assert "--fp16" in refuse("--fp16")


@pytest.mark.parametrize(
    "options, said",
    [
        *(([f"--shard={shard}"], "--shard") for shard in ("3/3", "x", "-1/3", "1/0", "0")),
        (["--beam", "0"], "--beam"),
        (["--add-raw", "1.5"], "--add-raw"),
        (["--add-raw", "nan"], "--add-raw"),
        (["--batch-size", "0"], "--batch-size"),
        (["--max-tokens", "-1"], "--max-tokens"),
        (["--max-len-b", "0"], "--max-len-b"),
        (["--lenpen", "inf"], "--lenpen"),
        (["--seed", "-1"], "--seed"),
        (["--choose", "best-bleu", "--beam", "1"], "--beam of at least 2"),
        (["--merge"], "--teacher does not go with --merge"),
    ],
)
def test_impossible_options_are_refused(options, said, tmp_path, capsys):
    """Before anything is read."""
    command = ["distill", "data", "--teacher", "teacher.pt", "--out", str(tmp_path / "out")]
    assert main([*command, *options]) == 2
    captured = capsys.readouterr()
    assert said in captured.err and captured.err.startswith("error: ")
    assert len(captured.err.splitlines()) == 1 and not captured.out


def test_unfinished_work_with_other_options_is_refused(corpus, teacher, tmp_path):
    work = tmp_path / "out.unfinished"
    work.mkdir()
    command = ["distill", corpus.joined, "--teacher", teacher, "--out", tmp_path / "out"]
    with Journal(work / "journal") as journal:
        line = error_line(run(tmp_path, "difformer", *command))
        assert "in use by another process" in line
        journal.begin({"--beam": 4})
        journal.append({"batch": 0})
    line = error_line(run(tmp_path, "difformer", *command))
    assert "--beam 4 instead of 5" in line and str(work) in line
