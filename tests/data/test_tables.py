"""Tab-separated tables, and the recipe of CoVoST 2 on made-up lines in its publishers' format."""

import csv
import io
import tarfile

import pytest

from difformer_plugin.data import recipe
from difformer_plugin.data.cleaning import normalise, to_ascii
from difformer_plugin.data.preparation import prepare
from difformer_plugin.data.recipe import Source
from difformer_plugin.data.sources import Folder, Pairs
from difformer_plugin.errors import UserError

COVOST = recipe.load("covost-de-en")
# Common Voice 4, validated.tsv: what CoVoST reads of it are path and sentence.
VOICES = (
    "client_id\tpath\tsentence\tup_votes\tdown_votes\tage\tgender\taccent\n"
    "c1\ta.mp3\tDas Café in Köln schließt (heute) um 8 Uhr.\t2\t0\t\t\t\n"
    "c2\tb.mp3\t„Übermut“, sagte Ćiro – tut selten gut…\t3\t1\ttwenties\tmale\tgermany\n"
    "c3\tlost.mp3\tDiesen Satz hat niemand übersetzt.\t2\t0\t\t\t\n"
    'c4\tc.mp3\tEin \\"Zitat\\" und "noch eins.\t2\t0\t\t\t\n'
    "c5\td.mp3\tDrei Hunde bellen.\t2\t0\t\t\t\n"
)
# CoVoST 2, covost_v2.de_en.tsv, in another order.
TRANSLATIONS = (
    "path\ttranslation\tsplit\n"
    "d.mp3\tThree dogs bark.\ttest\n"
    "b.mp3\t“Pride”, said Ćiro – goes before a fall…\ttrain_covost\n"
    "other.mp3\tA clip of another version.\ttrain\n"
    'c.mp3\tA \\"quotation\\" and "another one.\tdev\n'
    "a.mp3\tThe café in Köln closes (today) at 8 o’clock.\ttrain\n"
)


@pytest.fixture
def raw(tmp_path):
    (tmp_path / "raw" / "de").mkdir(parents=True)
    (tmp_path / "raw" / "de" / "validated.tsv").write_text(VOICES, "utf-8")
    (tmp_path / "raw" / "covost_v2.de_en.tsv").write_text(TRANSLATIONS, "utf-8")
    return tmp_path / "raw"


def pairs(folder, split, langs=("de", "en")):
    (source,) = COVOST.split(split).files
    return list(Pairs(source, Folder(folder), langs, COVOST.published))


def by_the_publishers_rules(split):
    """Both tables read without quotes but with escapes, merged in the order of the first."""
    form = {"delimiter": "\t", "quoting": csv.QUOTE_NONE, "escapechar": "\\"}
    voices, translations = (
        list(csv.DictReader(io.StringIO(text), **form)) for text in (VOICES, TRANSLATIONS)
    )
    return [
        [voice["sentence"], other["translation"]]
        for voice in voices
        for other in translations
        if voice["path"] == other["path"] and other["split"] in split
    ]


@pytest.mark.parametrize(
    "split, names",
    [("train", ("train", "train_covost")), ("valid", ("dev",)), ("test", ("test",))],
)
def test_covost_joins_the_tables_of_both_publishers(raw, split, names):
    expected = by_the_publishers_rules(names)
    assert [texts for _, *texts in pairs(raw, split)] == expected
    assert len(expected) == (2 if split == "train" else 1)
    swapped = [texts[::-1] for _, *texts in pairs(raw, split, ("en", "de"))]
    assert sorted(swapped) == sorted(expected)


def test_places_are_the_lines_of_both_files(raw):
    places = [[number for _, number in place] for place, *_ in pairs(raw, "train")]
    assert places == [[2, 6], [3, 3]]


def test_covost_is_found_in_the_archive_of_the_translations(raw):
    path = raw / "covost_v2.de_en.tsv"
    with tarfile.open(raw / "covost_v2.de_en.tsv.tar.gz", "w:gz") as archive:
        archive.add(path, path.name)
    path.unlink()
    assert [texts for _, *texts in pairs(raw, "test")] == by_the_publishers_rules(("test",))


@pytest.mark.parametrize("name", ["de/validated.tsv", "covost_v2.de_en.tsv"])
def test_what_has_to_be_fetched_by_hand_is_one_line(raw, name):
    (raw / name).unlink()
    with pytest.raises(UserError) as error:
        pairs(raw, "train")
    line = str(error.value)
    assert f"no {name.split('/')[-1]} there" in line and "\n" not in line
    assert "commonvoice.mozilla.org" in line and "github.com/facebookresearch/covost" in line


def test_covost_has_the_alphabet_of_the_thesis(raw, tmp_path):
    """Umlauts are spelt out, other accents and brackets are gone; references stay as they were."""
    counts = prepare(COVOST, raw, tmp_path / "out", ("de", "en"), progress=False).counts
    assert [counts[split]["pairs"] for split in ("train", "valid", "test")] == [2, 1, 1]
    text = COVOST.text
    for (german, english), expected in zip(
        by_the_publishers_rules(("train", "train_covost", "dev")),
        [
            (
                "Das Cafe in Koeln schliesst heute um 8 Uhr.",
                "The cafe in Koeln closes today at 8 o'clock.",
            ),
            (
                '"Uebermut", sagte Ciro - tut selten gut...',
                '"Pride", said Ciro - goes before a fall...',
            ),
            ('Ein "Zitat" und "noch eins.', 'A "quotation" and "another one.'),
        ],
        strict=True,
    ):
        assert (normalise(german, text, "de"), normalise(english, text, "en")) == expected
    written = (tmp_path / "out" / "text" / "train.de").read_text("utf-8").replace("@@ ", "")
    assert written.splitlines()[0] == "Das Cafe in Koeln schliesst heute um 8 Uhr ."
    reference = (tmp_path / "out" / "reference" / "test.en").read_text("utf-8")
    assert reference == "Three dogs bark.\n"


def test_what_is_left_of_all_of_unicode():
    """The alphabet, digits and marks of ASCII without brackets; letters lose their accents."""
    left = to_ascii("".join(map(chr, [*range(0xD800), *range(0xE000, 0x110000)])))
    assert set(left) == set(map(chr, range(32, 127))) - set("()[]{}<>")
    assert to_ascii("àéîõüçšž ÀÉ") == "aeioucsz AE"
    assert to_ascii("a\tb\u00a0c\u2028d (e) [f] → Ж") == "a b c d e f  "


# one table, and damage


def table(tmp_path, content, **options):
    (tmp_path / "t.tsv").write_text(content, "utf-8")
    fields = {"de": "sentence", "en": "translation"}
    source = Source(**{"file": "t.tsv", "format": "tsv", "fields": fields} | options)
    return [texts for _, *texts in Pairs(source, Folder(tmp_path), ("de", "en"), "the moon")]


def test_one_table_with_both_sides(tmp_path):
    content = "path\tsentence\ttranslation\nx\tA\tB\ny\tC\tD\n"
    assert table(tmp_path, content) == [["A", "B"], ["C", "D"]]
    assert table(tmp_path, content, where={"path": ["y", "z"]}) == [["C", "D"]]


@pytest.mark.parametrize(
    "content, options, said",
    [
        ("", {}, "t.tsv: the file is empty; it needs a line with the names"),
        ("path\tsentence\n", {}, "line 1: no column translation; the columns are path, sentence"),
        ("sentence\ttranslation\nA\n", {}, "line 2: 1 columns, and at least 2 are needed"),
        ("sentence\ttranslation\n", {"where": {"split": ["dev"]}}, "no column split"),
    ],
)
def test_damaged_tables_are_one_line(tmp_path, content, options, said):
    with pytest.raises(UserError, match=said) as error:
        table(tmp_path, content, **options)
    assert "\n" not in str(error.value)


def test_two_tables_need_a_key(raw):
    (source,) = COVOST.test.files
    fields = {"file": source.file, "format": "tsv", "fields": source.fields}
    with pytest.raises(UserError, match="needs a key, the column by which the rows of two tables"):
        list(Pairs(Source(**fields), Folder(raw), ("de", "en"), "the moon"))


def test_a_repeated_key_gives_each_pair(tmp_path):
    """As a join of two tables does."""
    (tmp_path / "l.tsv").write_text("k\tsentence\n1\tA\n", "utf-8")
    (tmp_path / "r.tsv").write_text("k\ttranslation\n1\tB\n1\tC\n", "utf-8")
    files = {"file": {"de": "l.tsv", "en": "r.tsv"}, "key": "k"}
    assert table(tmp_path, "", **files) == [["A", "B"], ["A", "C"]]
