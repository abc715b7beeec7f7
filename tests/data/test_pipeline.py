"""pipeline.json: kept, copied, refused if damaged, and equal to fairseq's own processing."""

import json
from dataclasses import replace

import pytest

from difformer_plugin.data import pipeline
from difformer_plugin.data.pipeline import Pipeline, TextCodec, describe_subwords
from difformer_plugin.data.recipe import Text
from difformer_plugin.data.tokenisation import learn_codes
from difformer_plugin.errors import UserError

TEXT = [
    'Ein Hund läuft über die "Straße", nicht wahr?',
    "Das ist's: 3.500 & mehr <s> a-b | c.",
    "",
    "x\u2028y\x0cz  \t w",
    "§§ 漢字 @@ @-@ &amp; z. B. Dr. Müller.",
]


@pytest.fixture
def codes(tmp_path):
    (tmp_path / "text").write_text(
        "".join(f"{t}\n" for t in TEXT * 3).replace("\x0c", " "), "utf-8"
    )
    learn_codes([tmp_path / "text"], tmp_path / "learned", 60)
    return tmp_path / "learned"


@pytest.fixture
def described(codes):
    text = Text(replace={"de": {"ß": "ss"}}, lowercase=True)
    return Pipeline("de", "en", text, describe_subwords(pipeline.BPE, codes), "Some corpus", "here")


def test_a_pipeline_is_read_as_it_was_written(described, codes, tmp_path):
    pipeline.save(described, tmp_path / "data", codes)
    assert pipeline.load(tmp_path / "data") == described
    assert (tmp_path / "data" / "codes").read_bytes() == codes.read_bytes()
    assert pipeline.load(tmp_path) is None
    plain = Pipeline("de_DE", "en")
    pipeline.save(plain, tmp_path / "plain")
    assert pipeline.load(tmp_path / "plain") == plain


def test_text_is_processed_as_fairseq_does(described, codes):
    from fairseq.data.encoders.moses_tokenizer import MosesTokenizer, MosesTokenizerConfig
    from fairseq.data.encoders.subword_nmt_bpe import SubwordNMTBPE, SubwordNMTBPEConfig

    moses = MosesTokenizer(MosesTokenizerConfig(source_lang="de", target_lang="en"))
    bpe = SubwordNMTBPE(SubwordNMTBPEConfig(bpe_codes=str(codes)))
    codec = TextCodec(replace(described, text=Text()), codes)
    for text in TEXT:
        expected = bpe.encode(moses.encode(text))
        assert codec.encode(text) == expected
        assert codec.decode(expected) == moses.decode(bpe.decode(expected))
    assert TextCodec(described, codes).tokenize("Die STRAßE.") == "die strasse ."


def test_sentencepiece_is_the_librarys_own(tmp_path):
    sentencepiece = pytest.importorskip("sentencepiece")
    (tmp_path / "text").write_text("".join(f"{t}\n" for t in TEXT * 30), "utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(tmp_path / "text"), model_prefix=str(tmp_path / "m"), vocab_size=90,
        hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    file = tmp_path / "m.model"
    subwords = describe_subwords(pipeline.SENTENCEPIECE, file)
    codec = TextCodec(Pipeline("de", "en", Text(tokenise=False), subwords), file)
    processor = sentencepiece.SentencePieceProcessor(model_file=str(file))
    for text in TEXT:
        pieces = codec.encode(text)
        assert pieces.split() == processor.encode(" ".join(text.split()), out_type=str)
        assert codec.decode(pieces) == processor.decode(pieces.split())


def dictionaries(folder, symbol="a"):
    folder.mkdir(exist_ok=True)
    for lang in ("de", "en"):
        (folder / f"dict.{lang}.txt").write_text(f"{symbol} 1\n", "utf-8")


def test_a_data_bin_is_copied_with_its_dictionaries(described, codes, tmp_path):
    data, saved = tmp_path / "data", tmp_path / "checkpoints"
    dictionaries(data)
    assert not pipeline.copy_with_dictionaries(data, saved) and not saved.exists()
    pipeline.save(described, data, codes)
    for _ in range(2):
        assert pipeline.copy_with_dictionaries(data, saved)
        assert sorted(p.name for p in saved.iterdir()) == [
            *("codes", "dict.de.txt", "dict.en.txt", "pipeline.json")
        ]
    assert all(p.read_bytes() == (data / p.name).read_bytes() for p in saved.iterdir())
    dictionaries(data, "b")  # training goes on with other data in the same folder
    pipeline.copy_with_dictionaries(data, saved)
    assert (saved / "dict.de.txt").read_text() == "b 1\n"


def test_a_training_in_the_other_direction_has_its_own_order(described, codes, tmp_path):
    data, saved = tmp_path / "data", tmp_path / "checkpoints"
    dictionaries(data)
    pipeline.save(described, data, codes)
    for langs in (("en", "de"), ("en", "de"), (None, None), ("de", "en"), ("fr", "en")):
        pipeline.copy_with_dictionaries(data, saved, langs)
        found = pipeline.load(saved)
        expected = ("en", "de") if langs == ("en", "de") else ("de", "en")
        assert (found.source_lang, found.target_lang) == expected
        assert found.subwords == described.subwords and found.text == described.text


def test_a_foreign_file_is_not_overwritten(described, codes, tmp_path):
    data, saved = tmp_path / "data", tmp_path / "checkpoints"
    dictionaries(data)
    pipeline.save(described, data, codes)
    saved.mkdir()
    (saved / "codes").write_text("mine", "utf-8")
    with pytest.raises(UserError, match=r"checkpoints/codes is not that of .*data: move it away"):
        pipeline.copy_with_dictionaries(data, saved)
    assert [p.name for p in saved.iterdir()] == ["codes"]


@pytest.mark.parametrize(
    "change, said",
    [
        (lambda table: "[]", "is not a JSON object"),
        (lambda table: "{", "is not JSON"),
        (lambda table: "[" * 100_000, "is not JSON"),
        (lambda table: json.dumps(table | {"lang": 1}), "unknown key lang"),
        (lambda table: json.dumps(table | {"source-lang": 1}), "source-lang is 1, which is not a"),
        (lambda table: json.dumps({"source-lang": "de"}), "the key target-lang is missing"),
        (lambda table: json.dumps(table | {"format": 9}), "has format 9, and this version reads 1"),
        (lambda table: json.dumps(table | {"subwords": {"kind": "x"}}), "the kind must be one of"),
        (lambda table: json.dumps(table | {"subwords": {"kind": "bpe"}}), "the kind must be one"),
        (
            lambda table: json.dumps(table | {"subwords": {"kind": "bpe", "file": "../learned"}}),
            r"names \.\./learned, which is not beside it",
        ),
    ],
)
def test_a_damaged_file_is_one_line(described, codes, tmp_path, change, said):
    pipeline.save(described, tmp_path / "data", codes)
    path = tmp_path / "data" / "pipeline.json"
    path.write_text(change(json.loads(path.read_text("utf-8"))), "utf-8")
    with pytest.raises(UserError, match=said):
        pipeline.load(tmp_path / "data")


def test_other_or_damaged_subwords_are_one_line(described, codes, tmp_path):
    pipeline.save(described, tmp_path / "data", codes)
    with open(tmp_path / "data" / "codes", "a", encoding="utf-8") as file:
        file.write("o t\n")
    with pytest.raises(UserError, match="data/codes is not the file that .* was written for"):
        pipeline.load(tmp_path / "data")
    (tmp_path / "data" / "codes").write_text("one two three\n", "utf-8")
    with pytest.raises(UserError, match="data/codes does not hold subwords"):
        TextCodec(described, tmp_path / "data" / "codes")
