"""Choice among hypotheses, against a search over all of them written from the definition."""

import itertools
import random

import pytest
from sacrebleu import sentence_bleu as reference_bleu

from difformer_plugin.distillation.choice import SCORE_UNIT, best_bleu, likeliest
from difformer_plugin.distillation.failures import CUT_OFF, EMPTY, failure

TYPES = 4  # so few that hypotheses are often equally good


def words(tokens, escape_unk):
    """Token 0 is <unk>, which matches nothing in a reference."""
    return " ".join("<<unk>>" if escape_unk and t == 0 else f"w{t}" for t in tokens)


def bleu(tokens, target):
    reference = [words(target, True)]
    score = reference_bleu(words(tokens, False), reference, tokenize="none", lowercase=False)
    return score.score


def draw(random_source):
    """Hypotheses, source, target and limit; some hypotheses are failures."""
    target = random_source.choices(range(TYPES), k=random_source.randint(1, 7))
    drawn = [random_source.choices(range(TYPES), k=random_source.randint(0, 9)) for _ in range(5)]
    near = [[*target[:-1], random_source.randrange(TYPES)], target[::-1]]
    hypotheses = random_source.sample([*drawn, *near], 5)
    return hypotheses, [1, 2, 3], target, random_source.choice([None, 9, 6])


def test_best_bleu_is_the_first_of_the_best_usable_hypotheses():
    chance, seen = random.Random(7), {"tie": 0, "unusable": 0, "changed": 0, "first fails": 0}
    for _ in range(2000):
        hypotheses, source, target, limit = draw(chance)
        usable = [h for h in hypotheses if failure(h, source, target, limit) is None]
        choice = best_bleu(hypotheses, source, target, limit, words)
        first = round(bleu(hypotheses[0], target) / SCORE_UNIT)
        assert choice.counts["likeliest_bleu"] == first
        if not usable:
            seen["unusable"] += 1
            assert choice.output == hypotheses[0] and choice.failure[1] is None
            assert choice.failure[0] == failure(hypotheses[0], source, target, limit)
            assert choice.counts["chosen_bleu"] == first
            continue
        scores = [bleu(h, target) for h in usable]
        best = usable[scores.index(max(scores))]
        seen["tie"] += len({tuple(h) for h in usable if bleu(h, target) == max(scores)}) > 1
        seen["changed"] += best != hypotheses[0]
        seen["first fails"] += usable[0] is not hypotheses[0]
        assert choice.output == best and choice.failure is None
        assert choice.counts["changed"] == (best != hypotheses[0])
        assert choice.counts["chosen_bleu"] == round(max(scores) / SCORE_UNIT)
    assert min(seen.values()) > 10, seen


def test_of_equal_hypotheses_the_likeliest_is_taken():
    """Whatever their order: the same tokens in another order have no match of two words."""
    equal = [[1, 7], [1, 8], [1, 9]]
    for order in itertools.permutations(equal):
        assert best_bleu(list(order), [1], [1, 2], None, words).output == order[0]


@pytest.mark.parametrize("choose", [likeliest, best_bleu])
def test_failures_have_a_cause(choose):
    assert choose([[]], [1], [1], None, words).failure == (EMPTY, None)
    assert choose([[1, 2]], [1], [1], 2, words).failure == (CUT_OFF, None)


def test_likeliest_offers_the_next_usable_hypothesis():
    choice = likeliest([[], [1, 2, 3], [3], [1]], [1], [1], 3, words)
    assert choice.output == [] and choice.failure == (EMPTY, [3]) and not choice.counts
