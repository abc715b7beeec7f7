"""`difformer prepare` as a user runs it: its output, and one line per mistake."""

import gzip
import json
import re
import shutil

import pytest
from harness import error_line, lines, run, succeed

from difformer_plugin.data import recipe
from difformer_plugin.data.prepared import check_data_bin
from difformer_plugin.data.synthetic.grammar import write_corpus
from difformer_plugin.errors import UserError


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    folder = tmp_path_factory.mktemp("raw")
    write_corpus(folder, 3, 120, 9, 11)
    for path in folder.glob("train.*"):
        (folder / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    return folder


PAIR = ("--source-lang", "de", "--target-lang", "en")


def test_fairseq_trains_on_the_data_bin(raw, tmp_path):
    command = ["difformer", "prepare", "plain", "--raw", raw, "--out", tmp_path / "out", *PAIR]
    first = succeed(tmp_path, *command)
    assert first.out.splitlines() == [
        "train         120 pairs of 120 lines",
        "valid           9 pairs of 9 lines",
        "test           11 pairs of 11 lines",
        f"in {tmp_path / 'out'}: text, reference, data-bin",
        "note: the training text is so small that BPE found 918 of 8,000 merges: then no pair of "
        "symbols occurred twice. The data can be used as it is, but nearly every word has become a "
        "single token, rare ones too. Fewer merges split rare words into parts that others share: "
        "--bpe-merges 459, in a new --out",
    ]
    assert "Traceback" not in first.err and "INFO" not in first.err
    assert lines(tmp_path / "out" / "reference" / "test.en") == lines(raw / "test.en")
    again = succeed(tmp_path, *command)
    assert again.out.splitlines()[0] == "finished before, nothing to do"
    assert again.out.splitlines()[1:] == first.out.splitlines()
    succeed(
        tmp_path,
        *("fairseq-train", tmp_path / "out" / "data-bin", "--arch", "transformer_iwslt_de_en"),
        *("--task", "translation", "--encoder-layers", 1, "--decoder-layers", 1, "--cpu"),
        *("--optimizer", "adam", "--max-tokens", 300, "--max-update", 1, "--no-save"),
        *("--share-all-embeddings", "--num-workers", 0),
    )


def test_a_recipe_of_the_users_own(raw, tmp_path):
    shown = succeed(tmp_path, "difformer", "prepare", "plain", "--show").out
    assert shown == recipe.find("plain").read_text("utf-8")
    own = tmp_path / "own.toml"
    own.write_text(
        shown.replace("bpe-merges = 8000", "bpe-merges = 50")
        + '[pairs]\ntrain = 100\n\n[[download]]\nurl = "'
        + (raw / "test.en").as_uri()
        + '"\n',
        "utf-8",
    )
    part = tmp_path / "part"
    part.mkdir()
    for path in raw.iterdir():
        if path.name != "test.en":
            (part / path.name).symlink_to(path)
    command = ["difformer", "prepare", own, "--raw", part, "--out", tmp_path / "out", *PAIR]
    assert "no test.en" in error_line(run(tmp_path, *command, "--text-only"))
    outcome = succeed(tmp_path, *command, "--text-only", "--download")
    assert "warning: train has 120 pairs, but 100 according to" in outcome.out
    assert len(lines(tmp_path / "out" / "text" / "codes")) == 51
    assert not (tmp_path / "out" / "data-bin").exists()
    counts = json.loads((tmp_path / "out" / "prepare.json").read_text("utf-8"))["counts"]
    assert counts["test"] == {"pairs": 11, "lines": 11}


@pytest.fixture(scope="module")
def prepared(raw, tmp_path_factory):
    """A command and the folder that it has made."""
    out = tmp_path_factory.mktemp("prepared") / "out"
    command = ["difformer", "prepare", "plain", "--raw", raw, "--out", out, *PAIR]
    command += ["--bpe-merges", 100]
    succeed(out.parent, *command)
    return command, out


def test_a_data_bin_without_all_files_is_not_called_finished(prepared):
    command, out = prepared
    lost = out / "data-bin" / "train.de-en.de.bin"
    whole = lost.read_bytes()
    lost.unlink()
    error = error_line(run(out.parent, *command))
    assert f"{lost} has 0 of {len(whole)} bytes: remove {lost.parent} and run" in error
    shutil.rmtree(lost.parent)
    assert "nothing to do" not in succeed(out.parent, *command).out
    assert lost.read_bytes() == whole


@pytest.mark.parametrize(
    "name, keep, said",
    [
        ("dict.en.txt", None, "is gone"),
        ("valid.de-en.en.idx", None, "is gone"),
        ("train.de-en.de.bin", 100, "has 100 of"),
        ("test.de-en.de.idx", 40, "is truncated"),
    ],
)
def test_what_is_wrong_with_a_data_bin(prepared, tmp_path, name, keep, said):
    folder = shutil.copytree(prepared[1] / "data-bin", tmp_path / "data-bin")
    counts = {"train": {"pairs": 120}, "valid": {"pairs": 9}, "test": {"pairs": 11}}
    check_data_bin(folder, ("de", "en"), counts)
    whole = (folder / name).read_bytes()
    (folder / name).unlink()
    if keep:
        (folder / name).write_bytes(whole[:keep])
    with pytest.raises(UserError, match=f"{re.escape(name)} {said}.*: remove {folder} and run"):
        check_data_bin(folder, ("de", "en"), counts)


@pytest.mark.parametrize(
    "name, size, said",
    [
        ("reference/test.en", None, "reference/test.en is gone: remove {out} and prepare"),
        ("text/codes", None, "text/codes is gone: remove {out} and prepare"),
        ("text/train.de", 100, r"text/train.de has \d lines, and 120 were written: remove {out}"),
        ("data-bin/codes", None, None),
    ],
)
def test_files_that_are_lost_are_named_or_made_again(prepared, tmp_path, name, size, said):
    """They passed as finished work, or became part of a new data-bin."""
    command, finished = prepared
    out = shutil.copytree(finished, tmp_path / "out")
    command = [out if argument == finished else argument for argument in command]
    path = out / name
    whole = path.read_bytes()
    path.unlink()
    if size:
        path.write_bytes(whole[:size])
        shutil.rmtree(out / "data-bin")
    outcome = run(tmp_path, *command)
    if said:
        assert re.search(said.format(out=re.escape(str(out))), error_line(outcome))
        assert (out / "data-bin").exists() == (size is None)
    else:
        assert outcome.code == 0 and path.read_bytes() == whole


def test_a_data_bin_of_other_text(prepared):
    counts = {"train": {"pairs": 121}}
    with pytest.raises(UserError, match="train.de-en.de has 120 sentences, not 121: remove"):
        check_data_bin(prepared[1] / "data-bin", ("de", "en"), counts)


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["iwslt"], "no recipe iwslt: choose one of covost-de-en, debian-descriptions, "),
        (["nowhere.toml"], "no recipe nowhere.toml"),
        (["plain", "--out", "out"], "--raw is needed"),
        (["plain", "--raw", "raw"], "--out is needed"),
        (["plain", "--raw", "nowhere", "--out", "out", *PAIR], "nowhere: no such folder"),
        (["plain", "--raw", "raw", "--out", "out"], "--source-lang and --target-lang are needed"),
        (["plain", "--raw", "raw", "--out", "out", *PAIR, "--workers", 0], "--workers must be"),
        (["multi30k", "--raw", "raw", "--out", "out"], "github.com/multi30k/dataset"),
        (["qqp", "--raw", "raw", "--out", "out", "--download"], "QQP cannot be fetched"),
        (["multi30k", "--raw", "raw", "--out", "out", "-s", "it"], None),
    ],
)
def test_mistakes_are_reported_in_one_line(raw, tmp_path, arguments, said):
    (tmp_path / "raw").symlink_to(raw)
    arguments = [tmp_path / a if a in ("raw", "out", "nowhere") else a for a in arguments]
    outcome = run(tmp_path, "difformer", "prepare", *arguments)
    if said is None:  # argparse's own message
        assert outcome.code == 2 and "unrecognized arguments: -s it" in outcome.err
    else:
        assert re.sub(r"\s+", " ", said) in error_line(outcome)
    assert not (tmp_path / "out").exists()
