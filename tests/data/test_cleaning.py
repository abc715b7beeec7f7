"""Normalisation, tokenisation and the filter on pairs, compared with Moses and awk."""

import subprocess

import pytest
from sacremoses import MosesPunctNormalizer

from difformer_plugin.data import recipe
from difformer_plugin.data.cleaning import is_empty, normalise, remove_control, to_tokens, unfit
from difformer_plugin.data.recipe import Clean, Text


def test_a_line_is_empty_if_the_tokeniser_returns_nothing():
    for text in ("", " \u2003\t", "\x01\x1f"):
        assert is_empty(text) and to_tokens(text, Text(), "de") == ""
    assert not is_empty("\x01a")


def test_control_characters_become_spaces():
    assert remove_control("a\u200bb\x85c\tdé") == "a b c dé"


def test_punctuation_is_normalised_as_by_moses():
    text = "„Das“ – so… sagte er – kostet 1 000 €"
    expected = MosesPunctNormalizer(lang="de").normalize(text)
    assert normalise(text, Text(normalise_punctuation=True), "de") == expected != text
    assert normalise(text, Text(), "de") == text


def test_romanian_cedillas_become_commas():
    text = recipe.load("wmt16-en-ro").text
    assert normalise("Ţara Şi ţara şi", text, "ro") == "Țara Și țara și"
    assert "\u0219" in normalise("ş", text, "ro") and "\u015f" in normalise("ş", text, "en")


def test_tokenised_text_is_kept():
    text = Text(tokenise=False)
    assert to_tokens(" -lrb- #.## UNK's\u2028x ", text, "src") == "-lrb- #.## UNK's x"


def test_the_rules_of_another_language():
    assert to_tokens("It's", Text(moses_language="en", lowercase=True), "src") == "it &apos;s"


AWK = """
{ a = split($1, x, " "); b = split($2, y, " ") }
a >= MIN && b >= MIN && a <= MAX && b <= MAX && a / b <= RATIO && b / a <= RATIO { print NR }
"""


@pytest.mark.parametrize("low, high, ratio", [(1, 175, 1.5), (2, 6, 3.0), (1, 9, 1.0)])
def test_unfit_pairs_are_those_of_an_awk_program(low, high, ratio):
    """For every pair of lengths from 0 to 10."""
    pairs = [(" ".join("a" * n), " ".join("b" * m)) for n in range(11) for m in range(11)]
    text = "".join(f"{left}\t{right}\n" for left, right in pairs)
    options = ["-v", f"MIN={low}", "-v", f"MAX={high}", "-v", f"RATIO={ratio}"]
    done = subprocess.run(
        ["awk", "-F", "\t", *options, AWK], input=text, capture_output=True, text=True, check=True
    )
    clean = Clean(min=low, max=high, ratio=ratio)
    kept = [number for number, pair in enumerate(pairs, 1) if unfit(*pair, clean) is None]
    assert kept == [int(line) for line in done.stdout.split()]
    assert 8 < len(kept) < len(pairs)


def test_the_reasons_for_removal():
    clean = Clean(min=2, max=4, ratio=1.5)
    assert unfit("", "a b", clean) == "empty"
    assert unfit("a", "a b", clean) == "too short"
    assert unfit("a b", "a b c d e", clean) == "too long"
    assert unfit("a b", "a b c d", clean) == "lengths too different"
    assert unfit("a b", "a b c", clean) is None
    assert unfit("a", "b " * 999, Clean()) is None
