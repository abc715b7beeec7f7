"""div-4, self-BLEU and the oracle against hand counts."""

import pytest
import sacrebleu

from difformer_plugin.evaluation.diversity import div_4, diversity, oracle_choice, self_bleu
from difformer_plugin.evaluation.inputs import System
from difformer_plugin.evaluation.metrics import corpus_bleu


def test_div_4_counts_distinct_4_grams_among_all():
    # abcd bcde | abcd bcdf | -: 3 distinct of 4
    assert div_4(["a b c d e", "a b c d f", "a b c"]) == 3 / 4
    assert div_4(["a b c d"] * 5) == 1 / 5
    assert div_4(["a b c d", "e f g h"]) == 1
    assert div_4(["a b", ""]) == 0


def test_self_bleu_is_the_mean_over_pairs_of_both_orders():
    samples = ["a b c d e", "a b c d f g", "a b c d e"]

    def bleu(i, j):
        return sacrebleu.sentence_bleu(samples[i], [samples[j]], tokenize="none").score

    pairs = [(0, 1), (1, 0), (0, 2), (2, 0), (1, 2), (2, 1)]
    expected = sum(bleu(i, j) for i, j in pairs) / 6
    assert self_bleu(samples) == pytest.approx(expected)
    assert self_bleu(["a b c d"] * 3) == pytest.approx(100)
    assert self_bleu(["a b c d", "e f g h"]) < 20
    assert self_bleu(["a b c d"]) is None


def test_the_oracle_takes_the_best_at_any_position():
    samples = [["x y z w v", "a b c d e"], ["f g h i j", "f g h i"]]
    references = ["a b c d e", "f g h i j"]
    assert oracle_choice(samples, references) == references
    assert oracle_choice([["", "a"]], ["a"]) == ["a"]


def test_diversity_is_averaged_over_sources_with_several_samples():
    samples = [["a b c d", "a b c d"], ["a b c d", "e f g h"], ["a b c d"]]
    references = ["a b c d", "e f g h", "a b c d"]
    system = System("s", [], [own[0] for own in samples], samples)
    found = diversity(system, references)
    assert found["samples"] == 2 and found["sources"] == 2
    assert found["div_4"] == pytest.approx((1 / 2 + 1) / 2)
    assert found["self_bleu"] == pytest.approx((100 + self_bleu(samples[1])) / 2)
    assert found["oracle_bleu"] == pytest.approx(100)
    assert corpus_bleu(system.tokens, references) < 99
    assert diversity(System("s", [], [], [["a"], ["b"]]), ["a", "b"]) is None
