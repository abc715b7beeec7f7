"""Subwords of `difformer prepare`: BPE that runs dry, SentencePiece, keys from options."""

import dataclasses
import hashlib
import json
import sys

import pytest
from sentencepiece import SentencePieceProcessor

from difformer_plugin import __version__
from difformer_plugin.cli.main import main
from difformer_plugin.data import pipeline, preparation, recipe
from difformer_plugin.data.preparation import prepare
from difformer_plugin.data.synthetic.grammar import write_corpus
from difformer_plugin.errors import UserError

PAIR = ("--source-lang", "de", "--target-lang", "en", "--workers", "1", "--text-only")


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    folder = tmp_path_factory.mktemp("raw")
    write_corpus(folder, 3, 300, 9, 11)
    return folder


@pytest.fixture
def run(raw, tmp_path, capsys):
    """`difformer prepare plain` with some options: (folder, what it printed)."""

    def run(*options, name="out", code=0):
        out = tmp_path / name
        command = ["prepare", "plain", "--raw", str(raw), "--out", str(out), *PAIR, *options]
        assert main(command) == code
        printed = capsys.readouterr()
        return out, printed.err if code else printed.out

    return run


def lines(path):
    return path.read_text("utf-8").splitlines()


def test_a_bpe_that_runs_dry_is_mentioned_in_every_run(run):
    out, printed = run()
    merges = len(lines(out / "text" / "codes")) - 1
    assert 100 < merges < 8000
    assert f"so small that BPE found {merges:,} of 8,000 merges: then" in printed
    assert f"--bpe-merges {merges // 2}," in printed
    assert f"found {merges:,} of 8,000" in run()[1]
    assert "note" not in run("--bpe-merges", "100", name="few")[1]


def test_keys_from_the_command_line_are_those_of_a_recipe(run, raw, tmp_path):
    changed = ["--bpe-merges", "90", "--lowercase", "--clean-max", "12", "--clean-ratio", "1.5"]
    out, _ = run(*changed, "--no-tokenise")
    own = tmp_path / "own.toml"
    text = recipe.find("plain").read_text("utf-8").replace("bpe-merges = 8000", "bpe-merges = 90")
    text += "[text]\nlowercase = true\ntokenise = false\n[clean]\nmax = 12\nratio = 1.5\n"
    own.write_text(text, "utf-8")
    prepare(recipe.load(own), raw, tmp_path / "same", ("de", "en"), progress=False)
    for path in (tmp_path / "same").rglob("*.*"):
        other = out / path.relative_to(tmp_path / "same")
        assert path.read_bytes() == other.read_bytes(), path
    assert lines(out / "text" / "train.en") == [s.lower() for s in lines(out / "text" / "train.en")]
    assert max(len(line.split()) for line in lines(raw / "train.en")) > 12


def test_sentencepiece_is_the_library(run, raw):
    out, printed = run("--sentencepiece", "300")
    assert "note" not in printed and not (out / "text" / "codes").exists()
    model = SentencePieceProcessor(model_file=str(out / "text" / "sentencepiece.model"))
    assert model.get_piece_size() == 300
    for split in ("train", "test"):
        pieces = [line.split() for line in lines(out / "text" / f"{split}.de")]
        assert [model.decode(line) for line in pieces] == lines(raw / f"{split}.de")
        assert pieces == model.encode(lines(raw / f"{split}.de"), out_type=str)
    again, _ = run("--sentencepiece", "300", name="again")
    assert model.serialized_model_proto() == (again / "text/sentencepiece.model").read_bytes()
    codec = pipeline.load_codec(out / "text")
    sentence = lines(raw / "test.de")[0]
    assert codec.encode(sentence) == " ".join(model.encode(sentence, out_type=str))
    assert codec.decode(codec.encode(sentence)) == sentence


def test_a_vocabulary_that_the_text_does_not_have(run):
    out, printed = run("--sentencepiece", "30000")
    model = SentencePieceProcessor(model_file=str(out / "text" / "sentencepiece.model"))
    assert f"found only {model.get_piece_size():,} of 30,000 pieces" in printed
    _, said = run("--sentencepiece", "9", name="small", code=2)
    (error,) = [line for line in said.splitlines() if line.startswith("error: ")]
    assert error.startswith("error: SentencePiece cannot make a vocabulary of 9 pieces")
    assert said.endswith(f"{error}\n") and "9 vs" in error
    _, said = run("--sentencepiece", "1", name="smaller", code=2)
    assert "1 pieces from train (too few for <unk>, <s>, </s> and the characters)" in said


@pytest.mark.parametrize(
    "options, said",
    [
        (("--sentencepiece", "300", "--bpe-merges", "5"), "exclude each other"),
        (("--bpe-merges", "-1"), "bpe-merges must be 0"),
        (("--sentencepiece", "-1"), "sentencepiece must be 0"),
        (("--clean-ratio", "0.5"), "ratio must be 0"),
        (("--clean-max", "-3"), "max 0 (any) or at least min"),
    ],
)
def test_impossible_values_are_one_line(run, options, said):
    out, printed = run(*options, code=2)
    assert printed.startswith("error: ") and printed.count("\n") == 1 and said in printed
    assert not out.exists()


def test_without_the_library_it_says_how_to_get_it(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    out, printed = run("--sentencepiece", "300", code=2)
    assert printed == (
        "error: SentencePiece is not installed: pip install sentencepiece, or use BPE merges\n"
    )
    assert not (out / "text").exists()


def test_folders_of_before_sentencepiece_stay_valid(raw, tmp_path):
    """Their key is the digest of the recipe's keys of that time, before those of tables too."""
    plain = recipe.load("plain")
    out = tmp_path / "out"
    prepare(plain, raw, out, ("de", "en"), progress=False)
    keys = {k: v for k, v in dataclasses.asdict(plain).items() if k != "sentencepiece"}
    del keys["text"]["ascii"]
    for split in ("train", "valid", "test"):
        for source in keys[split]["files"]:
            del source["key"], source["where"]
    files = [
        [hashlib.blake2b((raw / f"{split}.{lang}").read_bytes()).hexdigest(), ""]
        for split in ("train", "valid", "test")
        for lang in ("de", "en")
    ]
    entries = json.dumps([keys, ["de", "en"], files, __version__], sort_keys=True)
    older = hashlib.sha256(entries.encode()).hexdigest()
    assert preparation.fingerprint(plain, raw, ("de", "en")) == older
    with pytest.raises(UserError, match="another recipe"):
        changed = recipe.changed(plain, "plain", {"sentencepiece": 300})
        prepare(changed, raw, out, ("de", "en"), progress=False)
