"""Recipes: those of the package are consistent, and a wrong key or value is reported."""

import pytest

from difformer_plugin.data import recipe
from difformer_plugin.errors import UserError

GOOD = """
title = "t"
published = "p"
bpe-merges = 5
[train]
files = [{ file = "a.{lang}" }]
[valid]
every = 3
[test]
files = [{ file = ["b.{lang}", "c.{lang}"] }]
"""

# Table 20: training, validation, test
TABLE_20 = {
    "wmt14-en-de": (4_500_966, 3_000, 3_003),
    "wmt16-en-ro": (608_319, 1_999, 1_999),
    "iwslt14-de-en": (160_215, 7_282, 6_750),
    "gigaword": (3_803_957, 189_651, 1_951),
    "qqp": (144_715, 2_048, 2_500),
    "wiki-auto": (677_751, 2_048, 5_000),
    "quasar-t": (116_953, 2_048, 10_000),
}


def load(tmp_path, text):
    path = tmp_path / "own.toml"
    path.write_text(text, "utf-8")
    return recipe.load(str(path))


def test_the_package_covers_the_papers_corpora():
    for name, sizes in TABLE_20.items():
        assert tuple(recipe.load(name).pairs.values()) == sizes
    others = {"multi30k", "debian-descriptions", "covost-de-en", "plain"}
    assert set(recipe.available()) == set(TABLE_20) | others


@pytest.mark.parametrize("name", recipe.available())
def test_recipes_of_the_package_are_complete(name):
    loaded = recipe.load(name)
    langs = loaded.languages or ["fr", "de"]
    source, target = recipe.languages(loaded, langs[0], langs[1])
    for split in (loaded.train, loaded.valid, loaded.test):
        for file in split.files:
            for lang in (source, target):
                assert all(file.names(lang, source, target))
    for item in loaded.download:
        assert item.url.startswith("https://")
    assert loaded.published


def test_file_names_follow_direction_and_role():
    source = recipe.load("wmt16-en-ro").test.files[0]
    assert source.names("ro", "ro", "en") == ["newstest2016-roen-src.ro.sgm"]
    assert source.names("ro", "en", "ro") == ["newstest2016-enro-ref.ro.sgm"]


def test_a_recipe_of_the_users_own(tmp_path):
    own = load(tmp_path, GOOD)
    assert own.valid.every == 3 and own.bpe_merges == 5 and own.text.tokenise
    assert own.test.files[0].names("de", "de", "en") == ["b.de", "c.de"]


@pytest.mark.parametrize(
    "old, new, said",
    [
        ("title", "name", "unknown key name; the keys are title"),
        ('title = "t"', "", "the key title is missing"),
        ("bpe-merges = 5", 'bpe-merges = "5"', "bpe-merges is '5', which is not a whole number"),
        ("bpe-merges = 5", "bpe-merges = true", "bpe-merges is True, which is not a whole"),
        ("bpe-merges = 5", "bpe-merges = -1", "bpe-merges must be 0"),
        ("every = 3", "", "valid needs either files or every"),
        ("every = 3", "every = 1", "every must be 2 or more"),
        ("a.{lang}", "a.{language}", "a.{language}"),
        (
            'file = "a.{lang}"',
            "file = 5",
            "files[0]: file is 5, which is not a string or list",
        ),
        ('file = "a.{lang}"', 'file = "a", format = "xml"', "'xml' is not one of plain, segments"),
        ('file = "a.{lang}"', 'file = "a", format = "jsonl"', "jsonl needs fields"),
        ("[valid]", "[clean]\nunits = 'words'\n[valid]", "tokens or subwords, not 'words'"),
        ("[valid]", "[text]\nlowercase = 1\n[valid]", "lowercase is 1, which is not a true or"),
        ("[valid]", "[valid", "is not TOML"),
        ('file = "a.{lang}"', "file = []", "train: file is empty"),
        ('file = "a.{lang}"', 'file = ""', "train: file is empty"),
        ('file = "a.{lang}"', "file = { de = 1 }", "file.de is 1, which is not a string or list"),
        ("a.{lang}", "a.{lang.upper}", "a.{lang.upper}"),
        ("a.{lang}", "a.{", "a.{"),
        ('a.{lang}"', 'a.{lang}", remove = [1]', "remove[0] is 1, which is not a string"),
        ('a.{lang}"', 'a.{lang}", replace = { a = 1 }', "replace.a is 1, which is not a string"),
        ('a.{lang}"', 'a.{lang}", remove = [""]', "an empty string cannot be searched for"),
        ('a.{lang}"', 'a.{lang}", key = "k"', "key and where are of the format tsv"),
        ('"a.{lang}"', '"a", format = "tsv"', "jsonl needs fields, as tsv does"),
        ("[valid]", "[pairs]\ntraining = 100\n[valid]", "training is not a split with 1 or more"),
        ("[valid]", "[pairs]\ntrain = 0\n[valid]", "train is not a split with 1 or more pairs"),
        ("[valid]", "[pairs]\ntrain = '9'\n[valid]", "pairs.train is '9', which is not a whole"),
        ("[valid]", "[text.replace]\nde = 'x'\n[valid]", "replace.de is 'x', which is not a table"),
        ("bpe-merges = 5", "languages = ['de', 2]", "languages[1] is 2, which is not a string"),
        ("[valid]", "[clean]\nratio = nan\n[valid]", "ratio must be 0 (any) or at least 1"),
        ("[valid]", "[clean]\nratio = 0.5\n[valid]", "ratio must be 0 (any) or at least 1"),
        ("[valid]", "[clean]\nmin = 5\nmax = 3\n[valid]", "max 0 (any) or at least min"),
        ("[valid]", "[[download]]\nurl = 'foo'\n[valid]", "'foo' is not a URL"),
        ("[valid]", "[[download]]\nurl = 'http://a b'\n[valid]", "'http://a b' is not a URL"),
    ],
)
def test_the_message_names_what_is_wrong(tmp_path, old, new, said):
    assert old in GOOD
    with pytest.raises(UserError) as error:
        load(tmp_path, GOOD.replace(old, new, 1))
    assert said in str(error.value) and "own.toml" in str(error.value)


def test_a_float_may_be_written_as_an_integer(tmp_path):
    assert load(tmp_path, GOOD + "[clean]\nratio = 2\n").clean.ratio == 2.0


def test_an_unknown_recipe_is_answered_with_the_known_ones():
    with pytest.raises(UserError, match="no recipe iwslt: choose one of .*iwslt14-de-en"):
        recipe.load("iwslt")
    with pytest.raises(UserError, match="no recipe nowhere.toml"):
        recipe.load("nowhere.toml")


def test_the_language_pair():
    multi30k, plain = recipe.load("multi30k"), recipe.load("plain")
    iwslt = recipe.load("iwslt14-de-en")
    assert recipe.languages(multi30k, None, None) == ("de", "en")
    assert recipe.languages(multi30k, "cs", "fr") == ("cs", "fr")
    assert recipe.languages(iwslt, "en", None) == ("en", "de")
    assert recipe.languages(iwslt, None, "de") == ("en", "de")
    with pytest.raises(UserError, match="has no it: .* de, en, fr, cs"):
        recipe.languages(multi30k, "it", "en")
    with pytest.raises(UserError, match="both en"):
        recipe.languages(multi30k, "en", "en")
    for odd in ("zh-CN", "a/b", "a.b"):
        with pytest.raises(UserError, match=f"{odd}: fairseq splits file names"):
            recipe.languages(plain, odd, "en")
    with pytest.raises(UserError, match="are needed"):
        recipe.languages(plain, "de", None)
