"""Reading the file of --history-file."""

import json
import math
from dataclasses import replace

import pytest

from difformer_plugin.errors import UserError
from difformer_plugin.evaluation.history import display_pieces, mean_probability, read_history
from difformer_plugin.evaluation.inputs import System

SYSTEM = System("gen.out", ["", ""], [], [], [["a b", "a cat &apos;s"], ["x", "y"]])


def entry(number, step, tokens, probabilities):
    return json.dumps(
        {"id": number, "step": step, "tokens": tokens, "probabilities": probabilities}
    )


LINES = [
    entry(1, 0, ["<s>", "x", "</s>"], [0.9, 0.5, 0.7]),
    entry(1, 1, ["<s>", "y", "</s>"], [1, 1, 1]),
    entry(0, 1, ["a", "ca@@", "t", "&apos;s"], [1, 0.5, 0.25, 0.25]),
    entry(0, 0, ["a", "b"], [0.1, 0.3]),
]


@pytest.fixture
def write(tmp_path):
    def write(lines):
        path = tmp_path / "history"
        path.write_text("".join(f"{line}\n" for line in lines), "utf-8")
        return path

    return write


def test_steps_are_sorted(write):
    history = read_history(write(LINES), SYSTEM)
    assert history[0] == [
        [("a", 0.1), ("b", 0.3)],
        [("a", 1), ("ca@@", 0.5), ("t", 0.25), ("&apos;s", 0.25)],
    ]
    assert mean_probability(history) == [
        pytest.approx((0.1 + 0.3 + 0.5) / 3),
        pytest.approx((1 + 0.5 + 0.25 + 0.25 + 1) / 5),
    ]
    assert math.isnan(mean_probability({0: [[("<s>", 1.0), ("</s>", 1.0)]]})[0])


def test_sentences_decoded_by_parts_take_different_numbers_of_steps(write):
    """Block by block or word by word: the shorter one stays as it is after its last step."""
    more = entry(1, 2, ["b"], [0.5]), entry(1, 3, ["b", "c"], [0.75, 0.25])
    history = read_history(write([*LINES, *more]), replace(SYSTEM, steps=None))
    assert [len(history[number]) for number in (0, 1)] == [2, 4]
    expected = [(1 + 0.5 + 0.25 + 0.25 + p) / n for p, n in ((0.5, 5), (0.75 + 0.25, 6))]
    assert mean_probability(history)[2:] == pytest.approx(expected)


@pytest.mark.parametrize(
    "lines, said",
    [
        ([*LINES, "{"], "line 5: not a line of a history file"),
        ([*LINES, "[]"], "line 5: not a line"),
        (["3"], "line 1: not a line"),
        ([entry(0, 0, ["a"], [0.5, 0.5])], "line 1: not a line"),
        ([entry(0, 0, ["a"], ["x"])], "line 1: not a line"),
        ([*LINES, entry(0, 0, ["a"], [None])], "line 5: null is not a probability.*without --fp16"),
        ([entry(0, 0, ["a"], [math.nan])], "line 1: NaN is not a probability"),
        ([entry(0, 0, ["a", "b"], [1, 1.5])], "line 1: 1.5 is not a probability"),
        ([entry(0, 0, ["a"], [-0.1])], "line 1: -0.1 is not a probability"),
        (LINES[2:], "1 of 2 sentences are missing, the first of them 1"),
        (LINES[1:], "sentence 1 lacks some of its steps"),
        ([*LINES, entry(2, 0, [], [])], "has 3 sentences, but gen.out has 2"),
        ([*LINES[:2], entry(0, 0, ["a"], [1]), entry(0, 1, ["b"], [1])], "of the same run"),
        ([*LINES, *(entry(i, 2, ["y"], [1]) for i in (0, 1))], "of the same run"),
    ],
)
def test_malformed_and_foreign_history_files_are_refused(write, lines, said):
    with pytest.raises(UserError, match=said):
        read_history(write(lines), SYSTEM)


def test_subword_marks_become_spaces():
    bpe = [("<s>", 1.0), ("ca@@", 0.5), ("t", 0.2), ("sits", 0.9), ("</s>", 1.0)]
    assert display_pieces(bpe) == [("ca", 0.5, False), ("t", 0.2, False), ("sits", 0.9, True)]
    sentencepiece = [("▁ca", 0.5), ("t", 0.2), ("▁sits", 0.9)]
    assert display_pieces(sentencepiece) == display_pieces(bpe)
