"""A recipe with other values, as text."""

import tomllib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from difformer_plugin.cli import main
from difformer_plugin.data.recipe import Recipe, available, build, changed, find, load
from difformer_plugin.data.recipe_text import rewritten
from difformer_plugin.errors import UserError

VALUES = {
    "bpe_merges": st.integers(0, 99999),
    "text.lowercase": st.booleans(),
    "text.tokenise": st.booleans(),
    "text.normalise_punctuation": st.booleans(),
    "clean.max": st.integers(1, 500),
    "clean.ratio": st.floats(1, 100),
}


@pytest.mark.parametrize("name", available())
@given(values=st.fixed_dictionaries({}, optional=VALUES))
def test_the_text_says_what_the_options_say(name, values):
    loaded, text = load(name), find(name).read_text("utf-8")
    wanted = changed(loaded, name, values)
    shown = rewritten(text, loaded, wanted)
    assert build(Recipe, tomllib.loads(shown), "shown") == wanted
    comments = [line for line in text.splitlines() if line.startswith("#")]
    assert [line for line in shown.splitlines() if line.startswith("#")] == comments


def test_the_command_shows_what_it_would_do(capsys):
    options = ["--bpe-merges", "50", "--lowercase", "--clean-max", "40", "--target-lang", "en"]
    assert main.main(["prepare", "plain", "--show", *options]) == 0
    shown = tomllib.loads(capsys.readouterr().out)
    assert shown["bpe-merges"] == 50 and shown["target-lang"] == "en"
    assert (shown["text"], shown["clean"]) == ({"lowercase": True}, {"max": 40})


def test_a_text_without_changes_stays_as_it_is():
    text = find("plain").read_text("utf-8")
    assert rewritten(text, load("plain"), load("plain")) == text


def test_a_recipe_in_another_layout_is_refused():
    text = (
        find("plain").read_text("utf-8").replace("[train]", "text = {lowercase = false}\n[train]")
    )
    loaded = build(Recipe, tomllib.loads(text), "it")
    with pytest.raises(UserError, match="--show cannot change this recipe"):
        rewritten(text, loaded, replace(loaded, text=replace(loaded.text, lowercase=True)))
