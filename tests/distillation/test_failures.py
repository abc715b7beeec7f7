"""Failures of a teacher: compared with an exhaustive search for repetitions, and on real text."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from difformer_plugin.distillation.failures import (
    CUT_OFF,
    EMPTY,
    MAX_UNIT,
    REPETITION,
    TOO_LONG,
    failure,
    repeated,
)

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"


def exhaustive(tokens):
    """Try every start and unit; count the tokens that repeat the unit after its first time."""
    most = 0
    for start in range(len(tokens)):
        for unit in range(1, MAX_UNIT + 1):
            first = tokens[start : start + unit]
            stop = start + unit
            while stop < len(tokens) and tokens[stop] == first[(stop - start) % unit]:
                stop += 1
            if len(first) == unit and stop - start >= 3 * unit:
                most = max(most, stop - start - unit)
    return most


def test_repetitions_are_those_of_an_exhaustive_search():
    random = np.random.default_rng(1)
    found = set()
    for _ in range(2000):
        tokens = random.integers(0, 3, random.integers(0, 14)).tolist()
        tokens = tokens[:4] + tokens[4:6] * int(random.integers(0, 6)) + tokens[6:]
        assert repeated(tokens) == exhaustive(tokens)
        found.add(repeated(tokens))
    assert {0, 2, 3, 4, 5} <= found


def words(text):
    return text.split()


SOURCE = words("ein Mann in einem weißen Hemd geht mit seinem Hund durch den Park")
TARGET = words("a man in a white shirt is walking his dog through the park")


@pytest.mark.parametrize(
    "output, cause",
    [
        ("", EMPTY),
        ("a man in a white shirt and white shirt and white shirt and white shirt", REPETITION),
        ("a man man man man man man walks", REPETITION),
        ("a man " + ", " * 30, REPETITION),
        ("a man walks his dog , and " + " ".join(map(str, range(40))), TOO_LONG),
        ("a man in a white shirt walks", None),
        ("the the man has had had a dog", None),
        ("a man is very , very , very white", None),
    ],
)
def test_the_cause_of_a_failure(output, cause):
    assert failure(words(output), SOURCE, TARGET) == cause


def test_a_repetition_in_source_or_target_is_not_a_failure():
    dashes = words("- - - - - - - - table")
    assert failure(dashes, SOURCE, TARGET) == REPETITION
    assert failure(dashes, dashes, TARGET) is None
    assert failure(dashes, SOURCE, dashes) is None
    assert failure(words("-") * 40, dashes, dashes) == REPETITION


def test_an_output_cut_off_by_the_search_is_a_failure():
    output = words("a man in a white")
    assert failure(output, SOURCE, TARGET, limit=5) == CUT_OFF
    assert failure(output, SOURCE, TARGET, limit=6) is None


@pytest.mark.skipif(not DATA.is_dir(), reason="no shared/data")
@pytest.mark.parametrize("corpus, flagged", [("multi30k", (0, 0)), ("debian-descriptions", (0, 1))])
def test_real_targets_are_not_failures(corpus, flagged):
    """In training sets, into English and into German, at most one of 29,000 is flagged."""
    sides = []
    for language in ("de", "en"):
        path = DATA / corpus / f"train.{language}.gz"
        with gzip.open(path, "rt", encoding="utf-8", newline="\n") as file:
            sides.append([line.split() for line in file])
    assert len(sides[0]) >= 29_000
    found = [
        sum(failure(output, source, source) is not None for source, output in zip(*pair))
        for pair in (sides, sides[::-1])
    ]
    assert tuple(found) == flagged
