"""Raw files: found, unpacked and read side by side; damage is reported with file and line."""

import gzip
import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from difformer_plugin.data import recipe
from difformer_plugin.data.recipe import Source
from difformer_plugin.data.sources import Folder, Pairs, Raw, read_lines
from difformer_plugin.errors import UserError

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
LONG = b"".join(b"%d\n" % number for number in range(9999))


def write(folder, **files):
    """Write train_de="text" to folder/train.de; str is encoded as UTF-8."""
    folder.mkdir(exist_ok=True, parents=True)
    for name, content in files.items():
        content = content.encode() if isinstance(content, str) else content
        (folder / name.replace("_", ".")).write_bytes(content)
    return folder


def pairs(folder, langs=("de", "en"), **options):
    """The texts of a source, `train.{lang}` by default."""
    source = Source(**({"file": "train.{lang}"} | options))
    return [texts for _, *texts in Pairs(source, Folder(folder), langs, "the moon")]


def tar(path, **files):
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(f"inner/{name.replace('_', '.')}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def test_plain_gzipped_and_archived_files_give_the_same(tmp_path):
    german, english = b"Ein Hund.\nZwei.\n", b"A dog.\nTwo.\n"
    expected = [["Ein Hund.", "A dog."], ["Zwei.", "Two."]]
    write(tmp_path / "a", train_de=german, train_en=english)
    write(tmp_path / "b" / "deep", train_de_gz=gzip.compress(german), train_en=english)
    tar(write(tmp_path / "c") / "x.tgz", train_de=german, train_en_gz=gzip.compress(english))
    with zipfile.ZipFile(write(tmp_path / "d") / "x.zip", "w") as archive:
        archive.writestr("inner/train.de", german)
        archive.writestr("train.en", english)
    for name in "abcd":
        archive = "x.zip" if name == "d" else "x.tgz"
        assert pairs(tmp_path / name, archive=archive) == expected
    assert pairs(tmp_path / "c", archive="x.tgz", file="inner/train.{lang}") == expected


def test_an_unpacked_file_is_preferred_to_the_archive(tmp_path):
    tar(write(tmp_path) / "x.tgz", train_de=b"alt\n", train_en=b"old\n")
    write(tmp_path, train_de="neu\n", train_en="new\n")
    assert pairs(tmp_path, archive="x.tgz") == [["neu", "new"]]


def test_missing_and_ambiguous_files_are_reported(tmp_path):
    write(tmp_path, train_de="a\n")
    with pytest.raises(UserError) as error:
        pairs(tmp_path, archive="x.tgz")
    for part in (str(tmp_path), "train.en", "x.tgz", "the moon"):
        assert part in str(error.value)
    tar(tmp_path / "x.tgz", valid_de=b"")
    with pytest.raises(UserError, match=r"no train\.en there.*nor in .*x\.tgz; it comes from"):
        pairs(tmp_path, archive="x.tgz")
    write(tmp_path, train_de_gz=gzip.compress(b"a\n"), train_en="b\n")
    assert pairs(tmp_path) == [["a", "b"]]  # both plain and gzipped
    write(tmp_path / "copy", train_de="a\n", train_en="b\n")
    with pytest.raises(UserError, match=r"train\.de and .*train\.de could all be train\.de"):
        pairs(tmp_path)
    with pytest.raises(UserError, match="nowhere: no such folder"):
        pairs("nowhere")


def test_a_name_matches_whole_parts_of_a_path(tmp_path):
    write(tmp_path, train_de="a\n", train_en="b\n", mytrain_de="c\n")
    assert pairs(tmp_path) == [["a", "b"]]


def test_only_newline_ends_a_line(tmp_path):
    odd = "one\u2028two\x85three\x0bfour\x1cfive\rsix"
    path = write(tmp_path, train_de=f"\ufeff{odd}\r\nlast") / "train.de"
    assert list(read_lines(path)) == [odd, "last"]


def test_bad_utf8_names_file_and_line(tmp_path):
    write(tmp_path, train_de=b"gut\nk\xfche\n", train_en="good\ncows\n")
    with pytest.raises(UserError, match=r"train\.de, line 2: not UTF-8"):
        pairs(tmp_path)
    tar(tmp_path / "x.tgz", valid_de=b"\xff\n")
    with pytest.raises(UserError, match=r"x\.tgz:inner/valid\.de, line 1: not UTF-8"):
        list(read_lines(Raw(tmp_path / "x.tgz", "inner/valid.de")))


@pytest.mark.parametrize(
    "content",
    [b"no gzip", gzip.compress(LONG)[:-12], gzip.compress(LONG)[:20] + b"\xff" * 9],
    ids=["no gzip", "cut short", "broken"],
)
def test_damaged_gzip_is_reported(tmp_path, content):
    write(tmp_path, train_de_gz=content, train_en=LONG)
    with pytest.raises(UserError, match=r"train\.de\.gz: damaged"):
        pairs(tmp_path)


def test_an_archive_with_a_password_is_reported(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("train.de", "a")
    packed = bytearray((tmp_path / "x.zip").read_bytes())
    for mark in (b"PK\x03\x04", b"PK\x01\x02"):  # set the bit for encryption in both headers
        packed[packed.index(mark) + (6 if mark[2] == 3 else 8)] |= 1
    (tmp_path / "x.zip").write_bytes(packed)
    write(tmp_path, train_en="a\n")
    with pytest.raises(UserError, match=r"x\.zip:train\.de: damaged.*password"):
        pairs(tmp_path, archive="x.zip")


def test_a_damaged_archive_is_reported(tmp_path):
    write(tmp_path, x_tgz=b"no archive", train_de="a\n")
    with pytest.raises(UserError, match=r"x\.tgz: damaged archive"):
        pairs(tmp_path, archive="x.tgz")


@pytest.mark.parametrize("german, english", [(5, 3), (3, 5), (3, 4), (4, 3)])
def test_unequal_numbers_of_lines_are_reported(tmp_path, german, english):
    write(tmp_path, train_de="a\n" * german, train_en="b\n" * english)
    with pytest.raises(UserError, match=rf"de has {german} lines and .*en has {english};"):
        pairs(tmp_path)


def test_an_empty_file_is_refused(tmp_path):
    write(tmp_path, train_de="", train_en="")
    with pytest.raises(UserError, match=r"train\.de: the file is empty"):
        pairs(tmp_path)
    write(tmp_path, train_de="a\n")
    with pytest.raises(UserError, match=r"train\.en: the file is empty"):
        pairs(tmp_path)


TAGGED = """<url>u</url>
<title>{0} über</title>
 {0} eins
<talkid>1</talkid>
{0} zwei
"""
TAGS = {"drop_lines_with": ["<url>", "<talkid>"], "remove": ["<title>", "</title>"]}


def test_tagged_training_text(tmp_path):
    write(tmp_path, train_de=TAGGED.format("d"), train_en=TAGGED.format("e"))
    assert pairs(tmp_path, **TAGS) == [
        ["d über", "e über"],
        [" d eins", " e eins"],
        ["d zwei", "e zwei"],
    ]
    lines = TAGGED.format("e").splitlines(keepends=True)
    write(tmp_path, train_en="".join([*lines[:2], lines[3], lines[2], lines[4]]))
    with pytest.raises(UserError, match=r"train\.en, line 3: only one of them is a line with"):
        pairs(tmp_path, **TAGS)


XML = """<doc docid="1">
<seg id="1"> a &amp; b’s </seg>
</doc>
<doc docid="2">
<seg id="1">c</seg>
"""


def test_segments(tmp_path):
    write(tmp_path, train_de=XML, train_en=XML.upper())
    options = {"format": "segments", "replace": {"’": "'"}}
    assert pairs(tmp_path, **options)[0] == ["a &amp; b's", "A &AMP; B'S"]
    assert pairs(tmp_path, **options, decode_entities=True)[0] == ["a & b's", "A & B'S"]
    write(tmp_path, train_en=XML.replace('id="1">c', 'id="2">c'))
    with pytest.raises(UserError, match=r"train\.de, line 5, has segment 1 of document 2 where"):
        pairs(tmp_path, **options)
    write(tmp_path, train_en='<seg id="1"> a\n</seg>')
    with pytest.raises(UserError, match=r"train\.en, line 1: not a segment"):
        pairs(tmp_path, **options)
    write(tmp_path, train_de='<seg id="1">a</seg> <seg id="2">b</seg>\n')
    write(tmp_path, train_en='<seg id="1">c</seg>\n<seg id="2">d</seg>\n')
    assert pairs(tmp_path, **options) == [["a", "c"], ["b", "d"]]
    write(tmp_path, train_de='<seg id="1">a <seg id="2">b</seg>\n')
    with pytest.raises(UserError, match=r"train\.de, line 1: not a segment"):
        pairs(tmp_path, **options)
    write(tmp_path, train_de=XML, train_en="no segment\n")
    with pytest.raises(UserError, match=r"train\.en: the file is empty"):
        pairs(tmp_path, **options)


def test_json_lines(tmp_path):
    options = {"file": "train.jsonl", "format": "jsonl", "fields": {"de": "src", "en": "trg"}}
    write(tmp_path, train_jsonl='{"src": "a\\nb", "trg": "c", "more": 1}\n')
    assert pairs(tmp_path, **options) == [["a b", "c"]]
    deep = "[" * 100_000
    half = '{"src": "\\ud83d", "trg": "a"}'
    for bad in ('{"src": "a"}', "[1]", "{", '{"src": 1, "trg": "a"}', "", deep, half):
        write(tmp_path, train_jsonl='{"src": "a", "trg": "c"}\n' + bad + "\n")
        with pytest.raises(UserError, match=r"train\.jsonl, line 2: not a JSON object with"):
            pairs(tmp_path, **options)
    write(tmp_path, train_jsonl="")
    with pytest.raises(UserError, match=r"train\.jsonl: the file is empty"):
        pairs(tmp_path, **options)


@pytest.mark.skipif(not (DATA / "ted-xml").is_dir(), reason="TED is not beside the repository")
@pytest.mark.parametrize("langs", [("de", "en"), ("en", "de")])
def test_the_ted_test_sets_have_6750_pairs(langs):
    """The size of the IWSLT14 German-English test set in the literature."""
    iwslt = recipe.load("iwslt14-de-en")
    folder = Folder(DATA / "ted-xml")
    read = [
        texts
        for source in iwslt.test.files
        for _, *texts in Pairs(source, folder, langs, iwslt.published)
    ]
    assert len(read) == iwslt.pairs["test"] == 6750
    german = read[0][langs.index("de")]
    assert german.startswith("Wissen Sie, eines der großen") and german.endswith("schmecken.")
    assert not any("’" in text or "<seg" in text for texts in read for text in texts)


@pytest.mark.parametrize(
    "name, splits",
    [("multi30k", (29_000, 1_014, 1_000)), ("debian-descriptions", (29_109, 1_290, 1_382))],
)
def test_sizes_of_real_corpora(name, splits):
    if not (DATA / name).is_dir():
        pytest.skip(f"{name} is not beside the repository")
    corpus, folder = recipe.load(name), Folder(DATA / name)
    for split, expected in zip((corpus.train, corpus.valid, corpus.test), splits, strict=True):
        (source,) = split.files
        assert sum(1 for _ in Pairs(source, folder, ("en", "de"), "")) == expected
