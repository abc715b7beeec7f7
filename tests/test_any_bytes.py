"""Whatever bytes a file holds, every parser gives a result or a UserError of one line."""

import json
import zlib
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import make_dictionary

from difformer_plugin.data import pipeline, recipe
from difformer_plugin.data.sources import read_lines
from difformer_plugin.decoding.checks import check_options
from difformer_plugin.decoding.constraints import encoder, read_constraints
from difformer_plugin.decoding.settings import OPTIONS, DecodingOptions, read_settings
from difformer_plugin.distillation.distilled_data_bin import MANIFEST, finished_manifest
from difformer_plugin.distillation.settings import parse_shard
from difformer_plugin.distillation.shards import read_shards
from difformer_plugin.errors import UserError
from difformer_plugin.evaluation.history import read_history
from difformer_plugin.evaluation.inputs import System, load
from difformer_plugin.networks.building import read_vectors
from difformer_plugin.reranking.weighted import parse_weights
from difformer_plugin.storage import receipts
from difformer_plugin.storage.journal import Journal
from difformer_plugin.tasks.eval_bleu import generator_options

SYSTEM = System("gen.out", ["a", "b"], ["a", "b"], [["a"], ["b"]])
RECORD = b'{"batch": 0, "sentences": [0]}'


def read_options(path):
    """A settings file, and the check of the options that it sets."""
    check_options(DecodingOptions(**read_settings(path)))


def read_journal(path):
    with Journal(path) as journal:
        return list(journal.records())


# parser of a path -> a file that it accepts; the examples are changes of it
PARSERS = {
    "settings.toml": (
        read_options,
        b'decoding_steps = 10\nrerank = "mbr=1,length=0.1"\ndecoding_eta = 0.5\nclamping = true\n',
    ),
    "recipe.toml": (recipe.load, recipe.find("plain").read_bytes()),
    "pipeline.json": (
        lambda path: pipeline.load(path.parent),
        b'{"format": 1, "source-lang": "de", "target-lang": "en", "subwords": {"kind": "none"}}',
    ),
    "history.jsonl": (
        lambda path: read_history(path, SYSTEM),
        b'{"id": 0, "step": 0, "tokens": ["a"], "probabilities": [0.5]}\n'
        b'{"id": 1, "step": 0, "tokens": ["b"], "probabilities": [1]}\n',
    ),
    "gen.out": (
        load,
        b"[de] dictionary: 9 types\n[en] dictionary: 9 types\nS-0\ta b\nT-0\tc d\n"
        b"H-0\t-0.5\tc d\nD-0\t-0.5\tc d\nE-0_0\t<s> c d </s>\nGenerate test with beam=5: x\n",
    ),
    "constraints.jsonl": (
        lambda path: read_constraints(path, encoder(make_dictionary("ab"))),
        b'{"prefix": "a b", "anywhere": ["a", "b a"], "ordered": true}\n\n{"suffix": "b"}\n',
    ),
    "lines.txt": (lambda path: list(read_lines(path)), "ein Haus\nä\u2028b\n".encode()),
    "vectors.txt": (read_vectors, b"2 2\na 0.5 1\nb 1e-3 -2\n"),
    "journal": (read_journal, b"%08x %s\n" % (zlib.crc32(RECORD), RECORD) * 2),
    MANIFEST: (
        lambda path: finished_manifest(path.parent, {"setting": {"--beam": 5}}),
        b'{"setting": {"--beam": 5}}',
    ),
    f"shard/{MANIFEST}": (
        lambda path: read_shards([path.parent]),
        b'{"setting": {"--shard": "0/2", "split": "train"}, "name": "train.de-en"}',
    ),
    "receipt.json": (lambda path: receipts.read(path, {}, []), b'{"setting": {}, "files": {}}'),
}
ODD = [b"\x00", b"\xff", b"\n", b"\t", b"{", b"]", b'"', b"=", b"-1", b"1e999", b"NaN", b"null"]
ODD += [b"9" * 5000, b"[" * 3000, b"true", "\u0663".encode(), b" ", b"3000000000000"]


def changes(example):
    """The example with a few slices replaced."""
    place = st.integers(0, len(example))
    edits = st.lists(st.tuples(place, st.integers(0, 6), st.sampled_from(ODD)), max_size=3)

    def apply(edits):
        data = example
        for start, length, odd in edits:
            data = data[:start] + odd + data[start + length :]
        return data

    return edits.map(apply)


def one_line(error):
    assert str(error).strip() and "\n" not in str(error)


@pytest.mark.parametrize("name", PARSERS)
def test_files(name, tmp_path_factory):
    parse, example = PARSERS[name]
    path = tmp_path_factory.mktemp("files") / name
    path.parent.mkdir(exist_ok=True)

    @settings(max_examples=80)
    @given(st.binary(max_size=60) | changes(example))
    def check(content):
        path.write_bytes(content)
        try:
            parse(path)
        except UserError as error:
            one_line(error)

    check()


@pytest.mark.parametrize("name", sorted(set(PARSERS) - {"pipeline.json", f"shard/{MANIFEST}"}))
def test_the_examples_are_accepted(name, tmp_path):
    parse, example = PARSERS[name]
    (tmp_path / name).write_bytes(example)
    parse(tmp_path / name)


TEXT = st.text(max_size=20)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXT, inner, max_size=2),
    max_leaves=4,
)


@settings(max_examples=200)
@given(st.dictionaries(st.sampled_from(sorted(OPTIONS)) | TEXT, JSON, max_size=3).map(json.dumps))
def test_eval_bleu_args(text):
    """Any JSON object: options of the right types, or a line."""
    _check_eval_bleu_args(text)


@given(TEXT | st.sampled_from(["[" * 100_000, '{"decoding_steps": %s}' % ("9" * 5000), "3", "{}"]))
def test_eval_bleu_args_that_are_no_object(text):
    _check_eval_bleu_args(text)


def _check_eval_bleu_args(text):
    try:
        given_options = generator_options(SimpleNamespace(eval_bleu_args=text, rerank=None))
        check_options(DecodingOptions(**vars(given_options)))
    except UserError as error:
        one_line(error)


@given(TEXT | st.lists(st.sampled_from(["mbr", "length", "=", ",", "1", "nan", "teacher", " "])))
def test_weights_of_rerankers(text):
    try:
        weights = parse_weights("".join(text))
    except UserError as error:
        one_line(error)
    else:
        assert weights and all(abs(weight) < float("inf") for weight in weights.values())


@given(TEXT | st.from_regex(r"\A\d{1,3}/\d{1,3}\Z"))
def test_shards(text):
    try:
        shard, shards = parse_shard(text)
    except UserError as error:
        one_line(error)
    else:
        assert 0 <= shard < shards
