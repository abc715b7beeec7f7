"""Parsing the output of fairseq-generate."""

import pytest

from difformer_plugin.data.tokenisation import tokeniser
from difformer_plugin.errors import UserError
from difformer_plugin.evaluation.outputs import (
    check_complete,
    parse_outputs,
    sentences_by_changes,
)

LOG = """\
INFO:fairseq.tasks.translation:[de] dictionary: 864 types
INFO:fairseq.tasks.translation:[en] dictionary: 864 types
S-1\tEine Fr@@ au schläft .
T-1\tA wo@@ man sleeps .
H-1\t-0.25\tA wo@@ man sle@@ eps .
D-1\t-0.25\tA wo@@ man sle@@ eps .
P-1\t-0.1000 -0.2000
E-1_0\t<s> the the sle@@ eps . </s>
E-1_1\t<s> A wo@@ man sle@@ eps . </s>
H-1\t-0.5\tA man sle@@ eps .
D-1\t-0.5\tA man sle@@ eps .
E-1_0\t<s> of of </s>
E-1_1\t<s> A man sle@@ eps . </s>
E-1_2\t<s> A step beyond those of the best </s>
S-0\tDas ist gut .
T-0\tThat is good .
H-0\t-0.5\tThat is good .
D-0\t-0.5\tThat is good .
H-0\t-0.7\t
D-0\t-0.7\t
Generate test with beam=5: BLEU4 = 1.23
"""


def test_candidates_steps_and_languages():
    outputs = parse_outputs(LOG.splitlines(keepends=True))
    assert outputs.sources == {0: "Das ist gut .", 1: "Eine Frau schläft ."}
    assert outputs.references == {0: "That is good .", 1: "A woman sleeps ."}
    assert outputs.candidates == {
        0: ["That is good .", ""],
        1: ["A woman sleeps .", "A man sleeps ."],
    }
    assert outputs.best == {0: "That is good .", 1: "A woman sleeps ."}
    # of the best candidate; the steps of the second follow under the same numbers
    assert outputs.steps == {1: ["the the sleeps .", "A woman sleeps ."]}
    assert outputs.languages == ["de", "en"]
    assert outputs.ended and not outputs.was_detokenised and not outputs.sentencepiece


def test_steps_in_any_order():
    lines = [f"E-3_{k}\t<s> step {k}" for k in (0, 1, 10, 11, 2, 3, 4, 5, 6, 7, 8, 9)]
    assert parse_outputs(lines).steps[3] == [f"step {k}" for k in range(12)]


def test_sentencepiece_and_detokenised_lines():
    outputs = parse_outputs(
        ["H-0\t-1\t▁It ' s ▁go od .", "D-0\t-1\tIt's good.", "T-0\tIt's good.", "E-0_0\t▁a b"]
    )
    assert outputs.candidates == {0: ["It's good."]} == outputs.detokenised
    assert outputs.sentencepiece and outputs.steps == {0: ["ab"]}
    moses = parse_outputs(["H-0\t-1\tIt &apos;s good .", "D-0\t-1\tIt's good."])
    assert moses.was_detokenised


PLAIN = {
    "en": ["Mr. Smith, who works at Acme Inc., sleeps.", "Does he sleep?", "Good night"],
    "de": ["Er schläft z.B. nachts, usw.", "Na ja!", "Hr. Dr. Maier kommt am 3. Mai."],
    "fr": ["Bonjour !", "Ça va ?", "M. Dupont dort ; il rêve, dit-on."],
}


@pytest.mark.parametrize("language", PLAIN)
def test_punctuation_distinguishes_tokens_from_plain_text(language):
    def in_tokens(lines):
        return parse_outputs(f"H-{i}\t-1\t{line}" for i, line in enumerate(lines)).in_tokens

    tokens = list(map(tokeniser(language), PLAIN[language]))
    assert in_tokens(tokens) and not in_tokens(PLAIN[language])
    # no punctuation except in abbreviations
    assert in_tokens(["l&apos; eau", "qu&apos; il dort"])
    assert in_tokens(["Mr. Smith sleeps", "the U.S. are big", "no. 3", "a", "b"])


@pytest.mark.parametrize(
    "log, count, said",
    [
        ("H-0\t-1\ta\nH-2\t-1\tb\n", 4, r"gen: 2 of 4 .* first of them 1 .*size-multiple 1"),
        ("S-0\tx\nH-0\t-1\ta\nS-0\tx\nH-0\t-1\ta\n", 1, "sentence 0 .* there twice"),
        ("H-0\t-1\ta\nH-1\t-1\tb\n", 1, "has 2 sentences, but there are 1 references"),
    ],
)
def test_missing_and_surplus_sentences_are_refused(log, count, said):
    with pytest.raises(UserError, match=said):
        check_complete(parse_outputs(log.splitlines()), count, "gen")


def test_sentences_by_changes():
    steps = {0: ["a", "a"], 1: ["a", "b", "b"], 2: ["a", "b", "c"], 3: ["a", "b", "a"]}
    assert sentences_by_changes(steps) == [2, 1]  # the last output of 3 equals its first
