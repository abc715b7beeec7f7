"""Raw text to tokenised text: nothing lost, nothing shifted, and tokens equal to fairseq's own."""

import gzip
import os
from argparse import Namespace
from itertools import islice
from pathlib import Path

import pytest

from difformer_plugin.data.corpus import (
    detokeniser,
    find_split,
    prepare,
    read_lines,
    read_pairs,
    remove_bpe,
    tokeniser,
)
from difformer_plugin.data.grammar import write_corpus
from difformer_plugin.errors import UserError

MULTI30K = Path(__file__).resolve().parents[3] / "shared" / "data" / "multi30k"
LONG = b"".join(b"%d\n" % number for number in range(9999))
TRAIN = ("Ein Hund läuft.\nZwei Hunde laufen.\n", "A dog runs.\nTwo dogs run.\n")


def write(folder, **files):
    """train_de="text" -> folder/train.de; bytes as they are, str as UTF-8."""
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        content = content.encode() if isinstance(content, str) else content
        (folder / name.replace("_", ".")).write_bytes(content)
    return folder


@pytest.fixture
def raw(tmp_path):
    """A complete small corpus."""
    sides = {
        f"{split}_{lang}": TRAIN[lang == "en"]
        for split in ("train", "valid", "test")
        for lang in ("de", "en")
    }
    return write(tmp_path / "raw", **sides)


def pairs(folder, split="train"):
    return list(read_pairs(folder, split, "de", "en"))


def test_find_split_knows_gzip_and_val(tmp_path):
    write(tmp_path, train_de="a", val_de_gz=b"", test_en="a")
    assert find_split(tmp_path, "train", "de").endswith("train.de")
    assert find_split(tmp_path, "valid", "de").endswith("val.de.gz")
    with pytest.raises(UserError) as error:
        find_split(tmp_path, "valid", "en")
    for looked_for in ("valid.en", "valid.en.gz", "val.en", "val.en.gz", str(tmp_path)):
        assert looked_for in str(error.value)


def test_plain_and_gzip_read_alike(tmp_path):
    write(tmp_path, train_de=TRAIN[0], train_en_gz=gzip.compress(TRAIN[1].encode()))
    assert pairs(tmp_path) == [
        ("Ein Hund läuft.", "A dog runs."),
        ("Zwei Hunde laufen.", "Two dogs run."),
    ]


def test_only_newline_ends_a_line(tmp_path):
    odd = "one\u2028two\x85three\x0bfour\x1cfive\rsix"
    path = write(tmp_path, train_de=f"\ufeff{odd}\r\nlast") / "train.de"
    assert list(read_lines(path)) == [odd, "last"]


def test_tokens_of_an_odd_line_stay_on_one_line(raw, tmp_path):
    write(raw, train_de="ein\u2028Hund\x85und\rein\x0bTier\x1f.\nx\n")
    assert prepare(raw, tmp_path / "out", "de", "en", 0, progress=False)["train"] == 2
    # Read with universal newlines, as fairseq-preprocess does.
    lines = (tmp_path / "out" / "train.de").read_text(encoding="utf-8").splitlines()
    assert lines == ["ein Hund und ein Tier .", "x"]


def test_bad_utf8_names_file_and_line(tmp_path):
    write(tmp_path, train_de=b"gut\nk\xfche\n", train_en="good\ncows\n")
    with pytest.raises(UserError, match=r"train\.de, line 2: not UTF-8"):
        pairs(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        b"no gzip",
        gzip.compress(LONG)[:-12],
        gzip.compress(LONG)[:20] + b"\xff" * 9,
    ],
)
def test_damaged_gzip_is_named(tmp_path, content):
    write(tmp_path, train_de_gz=content, train_en=LONG)
    with pytest.raises(UserError, match=r"train\.de\.gz: damaged gzip"):
        pairs(tmp_path)


@pytest.mark.parametrize("german, english", [(5, 3), (3, 5), (3, 4)])
def test_unequal_counts_are_both_named(tmp_path, german, english):
    write(tmp_path, train_de="a\n" * german, train_en="b\n" * english)
    with pytest.raises(UserError, match=rf"de has {german} lines and .*en has {english};"):
        pairs(tmp_path)


def test_empty_file_is_refused(tmp_path):
    write(tmp_path, train_de="", train_en="")
    with pytest.raises(UserError, match=r"train\.de: the file is empty"):
        pairs(tmp_path)
    write(tmp_path, train_de="a\n")
    with pytest.raises(UserError, match=r"train\.en: the file is empty"):
        pairs(tmp_path)


def test_empty_lines_leave_train_and_are_counted(tmp_path, caplog):
    write(tmp_path, train_de="a\n\n \u2003\nd\n\x01\n", train_en="1\n2\n3\n4\n5\n")
    assert pairs(tmp_path) == [("a", "1"), ("d", "4")]
    assert "dropped 3 pairs" in caplog.text


@pytest.mark.parametrize("split", ["valid", "test"])
def test_empty_line_in_a_scored_split_is_an_error(tmp_path, split):
    write(tmp_path, **{f"{split}_de": "a\nb\n", f"{split}_en": "1\n\n"})
    with pytest.raises(UserError, match=rf"{split}\.en, line 2: empty"):
        pairs(tmp_path, split)


def test_failure_leaves_nothing_behind(raw, tmp_path):
    write(raw, test_de="only one line\n")
    with pytest.raises(UserError, match=r"test\.de has 1 lines"):
        prepare(raw, tmp_path / "out", "de", "en", 10, progress=False)
    assert os.listdir(tmp_path / "out") == []


def test_what_bpe_cannot_do_is_said(raw, tmp_path):
    with pytest.raises(UserError, match="-1 BPE merges"):
        prepare(raw, tmp_path / "out", "de", "en", -1)
    for german, english in (("a b c\n", "z\n"), ("ab cd\n", "ef\n")):  # no pair; none twice
        write(raw, train_de=german, train_en=english)
        with pytest.raises(UserError, match="no pair of letters"):
            prepare(raw, tmp_path / "out", "de", "en", 10, progress=False)


def test_lowercase(raw, tmp_path):
    prepare(raw, tmp_path / "out", "de", "en", 0, lowercase=True, progress=False)
    assert (tmp_path / "out" / "train.de").read_text() == "ein hund läuft .\nzwei hunde laufen .\n"
    assert not (tmp_path / "out" / "codes").exists()


def test_round_trip_on_the_grammar_corpus(tmp_path):
    write_corpus(tmp_path / "raw", train=400, valid=20, test=20)
    outs = [tmp_path / "one", tmp_path / "two"]
    for out in outs:
        counts = prepare(tmp_path / "raw", out, "de", "en", 300, progress=False)
        assert counts == {"train": 400, "valid": 20, "test": 20}
    names = sorted(os.listdir(outs[0]))
    assert names == ["codes"] + sorted(
        f"{split}.{lang}" for split in ("train", "valid", "test") for lang in ("de", "en")
    )
    for name in names:
        assert (outs[0] / name).read_bytes() == (outs[1] / name).read_bytes()
    for name in names[1:]:
        text = (outs[0] / name).read_text(encoding="utf-8")
        restore = detokeniser(name[-2:])
        restored = [restore(remove_bpe(line)) for line in text.splitlines()]
        assert restored == (tmp_path / "raw" / name).read_text(encoding="utf-8").splitlines()
        assert "@@ " in text
    # Joint: words of both languages are whole, which merges learnt on one side would not give.
    assert " der " in (outs[0] / "train.de").read_text(encoding="utf-8")
    assert " the " in (outs[0] / "train.en").read_text(encoding="utf-8")


def fairseq_encoders(lang, codes):
    """fairseq's `--tokenizer moses` and `--bpe subword_nmt`."""
    from fairseq.data.encoders.moses_tokenizer import MosesTokenizer, MosesTokenizerConfig
    from fairseq.data.encoders.subword_nmt_bpe import SubwordNMTBPE

    moses = MosesTokenizer(MosesTokenizerConfig(source_lang=lang, target_lang=lang))
    return moses, SubwordNMTBPE(Namespace(bpe_codes=str(codes), bpe_separator="@@"))


HARD = [
    'Er sagte: "Das ist z.B. ein E-Mail-Konto", nicht wahr?',
    "The man's dog doesn't like M&M's <really> [sic] | 3,500.50 $ ... at 5 p.m.",
]


def test_tokens_equal_fairseqs_on_hard_sentences(raw, tmp_path):
    prepare(raw, tmp_path / "out", "de", "en", 10, progress=False)
    for lang, text in zip(("de", "en"), HARD, strict=True):
        moses, bpe = fairseq_encoders(lang, tmp_path / "out" / "codes")
        tokens = tokeniser(lang)(text)
        assert tokens == moses.encode(text)
        assert detokeniser(lang)(tokens) == moses.decode(tokens)
        assert remove_bpe(bpe.encode(tokens)) == bpe.decode(bpe.encode(tokens)) == tokens
    assert "E @-@ Mail @-@ Konto" in tokeniser("de")(HARD[0])
    assert "&apos;s" in tokeniser("en")(HARD[1])


@pytest.mark.skipif(not MULTI30K.is_dir(), reason="Multi30k is not beside the repository")
def test_multi30k_equals_fairseqs_encoders(tmp_path):
    raw = tmp_path / "raw"
    for split, source, count in (
        ("train", "train", 1500),
        ("valid", "val", 200),
        ("test", "test_2016_flickr", 200),
    ):
        for lang in ("de", "en"):
            lines = islice(read_lines(MULTI30K / f"{source}.{lang}.gz"), count)
            write(raw, **{f"{split}_{lang}": "".join(line + "\n" for line in lines)})
    prepare(raw, tmp_path / "out", "de", "en", 500, progress=False)
    for lang in ("de", "en"):
        moses, bpe = fairseq_encoders(lang, tmp_path / "out" / "codes")
        expected = [bpe.encode(moses.encode(line)) for line in read_lines(raw / f"test.{lang}")]
        assert list(read_lines(tmp_path / "out" / f"test.{lang}")) == expected
        assert len(expected) == 200 and any("@@ " in line for line in expected)
