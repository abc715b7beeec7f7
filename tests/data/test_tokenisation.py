"""Tokenisation and BPE: equal to fairseq's own, and reversible."""

from argparse import Namespace
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest

from difformer_plugin.data import recipe
from difformer_plugin.data.preparation import prepare
from difformer_plugin.data.sources import read_lines
from difformer_plugin.data.synthetic.grammar import write_corpus
from difformer_plugin.data.tokenisation import (
    detokeniser,
    learn_codes,
    remove_bpe,
    tokeniser,
)
from difformer_plugin.errors import UserError

MULTI30K = Path(__file__).resolve().parents[3] / "shared" / "data" / "multi30k"


def plain(merges):
    return replace(recipe.load("plain"), bpe_merges=merges)


def test_text_without_repeated_pairs_of_letters_is_refused(tmp_path):
    text = tmp_path / "text"
    for content in ("a b c\n", "ab cd\n"):  # no pair of letters; none that occurs twice
        text.write_text(content)
        with pytest.raises(UserError, match="no pair of letters"):
            learn_codes([text], tmp_path / "codes", 10)


def test_round_trip_on_the_grammar_corpus(tmp_path):
    write_corpus(tmp_path / "raw", train=400, valid=20, test=20)
    summary = prepare(plain(300), tmp_path / "raw", tmp_path / "out", ("de", "en"), progress=False)
    assert {split: counts["pairs"] for split, counts in summary.counts.items()} == {
        "train": 400,
        "valid": 20,
        "test": 20,
    }
    text = tmp_path / "out" / "text"
    for path in sorted((*text.glob("*.de"), *text.glob("*.en"))):
        lines = path.read_text("utf-8")
        restore = detokeniser(path.name[-2:])
        restored = [restore(remove_bpe(line)) for line in lines.splitlines()]
        assert restored == (tmp_path / "raw" / path.name).read_text("utf-8").splitlines()
        assert "@@ " in lines
    # A joint BPE keeps frequent words of both languages whole.
    assert " der " in (text / "train.de").read_text("utf-8")
    assert " the " in (text / "train.en").read_text("utf-8")


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


def test_tokens_equal_fairseqs_on_hard_sentences(tmp_path):
    (tmp_path / "train").write_text("\n".join(HARD * 2), "utf-8")
    learn_codes([tmp_path / "train"], tmp_path / "codes", 10)
    for lang, text in zip(("de", "en"), HARD, strict=True):
        moses, bpe = fairseq_encoders(lang, tmp_path / "codes")
        tokens = tokeniser(lang)(text)
        assert tokens == moses.encode(text)
        assert detokeniser(lang)(tokens) == moses.decode(tokens)
        assert remove_bpe(bpe.encode(tokens)) == bpe.decode(bpe.encode(tokens)) == tokens
    assert "E @-@ Mail @-@ Konto" in tokeniser("de")(HARD[0])
    assert "E-Mail-Konto" in tokeniser("de", aggressive_dash_splits=False)(HARD[0])
    assert "&apos;s" in tokeniser("en")(HARD[1])


@pytest.mark.skipif(not MULTI30K.is_dir(), reason="Multi30k is not beside the repository")
def test_multi30k_equals_fairseqs_encoders(tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    for split, source, count in (
        ("train", "train", 1000),
        ("valid", "val", 20),
        ("test", "test_2016_flickr", 200),
    ):
        for lang in ("de", "en"):
            lines = islice(read_lines(MULTI30K / f"{source}.{lang}.gz"), count)
            (raw / f"{split}.{lang}").write_text("".join(line + "\n" for line in lines), "utf-8")
    prepare(plain(500), raw, tmp_path / "out", ("de", "en"), progress=False)
    text = tmp_path / "out" / "text"
    for lang in ("de", "en"):
        moses, bpe = fairseq_encoders(lang, text / "codes")
        expected = [bpe.encode(moses.encode(line)) for line in read_lines(raw / f"test.{lang}")]
        assert list(read_lines(text / f"test.{lang}")) == expected
        assert len(expected) == 200 and any("@@ " in line for line in expected)
