"""Percentile intervals and the paired test, against sacreBLEU and against resampling by hand."""

import random

import numpy as np
import pytest
from sacrebleu.metrics import BLEU, CHRF, TER
from sacrebleu.significance import PairedTest

from difformer_plugin.evaluation.bootstrap import resample
from difformer_plugin.evaluation.metrics import better


def corpus(seed, sentences=30, kept=0.8):
    """References over six words, and outputs that keep a share of these words."""
    draw = random.Random(seed)
    references = [" ".join(draw.choices("abcdef", k=draw.randint(2, 12))) for _ in range(sentences)]
    outputs = [
        " ".join(word if draw.random() < kept else draw.choice("abcdef") for word in line.split())
        for line in references
    ]
    return outputs, references


@pytest.mark.parametrize("scorer", [BLEU(), CHRF(), TER()], ids=["BLEU", "chrF", "TER"])
def test_scores_and_p_values_are_those_of_sacrebleu(scorer):
    outputs, references = corpus(1)
    baseline, _ = corpus(1, kept=0.6)
    row = resample(scorer, [outputs, baseline], references, 200)
    named = [("baseline", baseline), ("system", outputs)]
    signatures, found = PairedTest(named, {"": scorer}, [references], "bs", 200)()
    ((name, signature),) = signatures.items()
    assert row["scores"] == [pytest.approx(result.score) for result in reversed(found[name])]
    assert row["p_value"] == pytest.approx(found[name][1].p_value)
    assert row["signature"] == signature.format()


@pytest.mark.parametrize("scorer", [BLEU(), TER()], ids=["BLEU", "TER"])
def test_intervals_are_percentiles_of_resampled_scores(scorer, monkeypatch):
    monkeypatch.setenv("SACREBLEU_SEED", "7")
    outputs, references = corpus(2)
    row = resample(scorer, [outputs], references, 60)
    scores = []
    for indices in np.random.default_rng(7).choice(30, size=(60, 30), replace=True):
        drawn = [[texts[i] for i in indices] for texts in (outputs, references)]
        scores.append(scorer.corpus_score(drawn[0], [drawn[1]]).score)
    expected = np.percentile(scores, [2.5, 97.5])
    assert row["intervals"] == [pytest.approx(tuple(expected), abs=1e-3)]
    assert "p_value" not in row and "bs:60" in row["signature"]


def test_an_interval_stays_in_the_range_of_the_metric():
    """One of many sentences matches: a normal approximation would begin below 0."""
    references = [f"w{i} x{i} y{i} z{i}" for i in range(50)]
    outputs = [references[0], *(f"v{i} u{i} t{i} s{i}" for i in range(1, 50))]
    bleu = BLEU(tokenize="none", smooth_method="none", force=True)
    row = resample(bleu, [outputs], references, 300)
    ((low, high),) = row["intervals"]
    assert low == 0 < row["scores"][0] < high <= 100


def test_equal_outputs_are_not_different():
    outputs, references = corpus(3)
    assert resample(BLEU(), [outputs, outputs], references, 50)["p_value"] == 1


@pytest.mark.parametrize(
    "scores, p_value, lower, said",
    [
        ([30, 20], 0.01, False, "system"),
        ([20, 30], 0.01, False, "baseline"),
        ([20, 30], 0.01, True, "system"),
        ([30, 20], 0.05, False, "no significant difference"),
        ([30, 20], None, False, "system (not tested)"),
        ([30, 20], None, True, "baseline (not tested)"),
        ([30, 30], 1.0, False, "equal"),
    ],
)
def test_who_is_better(scores, p_value, lower, said):
    assert better(scores, p_value, lower) == said
