"""Folder, languages and dictionaries of data-bins, against fairseq's own reading of them."""

import pytest
from fairseq.data import Dictionary
from hypothesis import given
from hypothesis import strategies as st

from difformer_plugin.data.data_bin import (
    SPECIALS,
    check_folders,
    language_pair,
    read_dictionary,
    target_vocab_size,
)
from difformer_plugin.errors import UserError


def make_folder(folder, languages, files=(), symbols="abc"):
    folder.mkdir()
    for language in languages:
        lines = "".join(f"{symbol} 1\n" for symbol in symbols)
        (folder / f"dict.{language}.txt").write_text(lines, "utf-8")
    for name in files:
        (folder / name).touch()
    return folder


@pytest.mark.parametrize(
    "pair",
    [("de", "en"), ("zh-CN", "en"), ("en", "zh-CN"), ("sr-Latn-RS", "pt-BR"), ("src", "t.2")],
)
def test_languages_in_the_names_of_files(tmp_path, pair):
    """Whatever hyphens and dots a language has."""
    files = [f"{split}.{pair[0]}-{pair[1]}.{pair[0]}.idx" for split in ("train", "test-a.b")]
    folder = make_folder(tmp_path / "bin", pair, files)
    assert language_pair(folder) == pair
    assert check_folders([folder], None, None) == pair
    assert language_pair(folder, *reversed(pair)) == pair[::-1]
    assert language_pair(folder, source=pair[1]) == pair[::-1]
    assert language_pair(folder, target=pair[1]) == pair
    assert target_vocab_size(folder) == 3 + len(SPECIALS)


def test_files_of_two_pairs_need_options(tmp_path):
    files = ["train.de-en.de.idx", "train.fr-en.fr.bin"]
    folder = make_folder(tmp_path / "bin", ("de", "en", "fr"), files)
    with pytest.raises(UserError, match="de-en, fr-en.*--source-lang and --target-lang"):
        language_pair(folder)
    assert language_pair(folder, source="fr") == ("fr", "en")
    assert language_pair(folder, target="de") == ("en", "de")
    with pytest.raises(UserError, match="--source-lang"):
        language_pair(folder, target="en")


def test_a_folder_without_pairs(tmp_path):
    folder = make_folder(tmp_path / "bin", ("de", "en"), ["preprocess.log", "train.de-None.de.idx"])
    with pytest.raises(UserError, match="pairs: none"):
        language_pair(folder)


def test_raw_text_has_the_languages_in_its_names_too(tmp_path):
    assert language_pair(make_folder(tmp_path / "bin", ("de", "en"), ["test.de-en.en"])) == (
        *("de", "en"),
    )


def test_folders_must_share_their_dictionaries(tmp_path):
    files = ["train.de-en.de.idx"]
    first = make_folder(tmp_path / "a", ("de", "en"), files)
    same = make_folder(tmp_path / "b", ("de", "en"), files)
    assert check_folders([first, same], None, None) == ("de", "en")
    reordered = make_folder(tmp_path / "c", ("de", "en"), files, "acb")
    with pytest.raises(UserError, match=r"c/dict\.de\.txt .*a/dict\.de\.txt.*line 2 differs"):
        check_folders([first, same, reordered], None, None)
    longer = make_folder(tmp_path / "d", ("de", "en"), files, "abcd")
    with pytest.raises(UserError, match="line 4 differs"):
        check_folders([first, longer], "de", "en")
    with pytest.raises(UserError, match="nowhere: no such data folder"):
        check_folders([first, tmp_path / "nowhere"], "de", "en")


@pytest.mark.parametrize("folders", [[], [""], ["{}", ""]])
def test_an_empty_name_of_a_folder(tmp_path, folders):
    folder = make_folder(tmp_path / "bin", ("de", "en"), ["train.de-en.de.idx"])
    with pytest.raises(UserError, match="empty name"):
        check_folders([name.format(folder) for name in folders], None, None)


LINES = st.lists(
    st.sampled_from(["a", "b", "ä", "<s>", "<unk>", "#fairseq:overwrite", " ", "\t", "1", "\u3000"])
).map(" ".join)
TEXTS = st.lists(LINES | st.text()).map("\n".join).map(str.encode)


@given(TEXTS | st.binary())
def test_dictionaries_are_read_as_fairseq_reads_them(tmp_path_factory, content):
    """Any bytes: the same symbols, or a UserError where fairseq fails."""
    path = tmp_path_factory.getbasetemp() / "dict.de.txt"
    path.write_bytes(content)
    try:
        expected = Dictionary.load(str(path)).symbols[len(SPECIALS) :]
    except Exception:
        with pytest.raises(UserError, match=r"dict\.de\.txt"):
            read_dictionary(path)
    else:
        assert read_dictionary(path) == expected
