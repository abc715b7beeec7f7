from itertools import permutations

import numpy as np
import pytest

from difformer_plugin.bench.differences import (
    compare,
    count_differing,
    count_differing_candidates,
)


def test_surplus_tokens_count_as_differing():
    assert count_differing((1, 2, 3), (1, 2, 3)) == 0
    assert count_differing((1, 2, 3), (1, 5, 3)) == 1
    assert count_differing((1, 2, 3), (1,)) == 2
    assert count_differing((), (4, 4)) == 2


@pytest.mark.parametrize("seed", range(5))
def test_candidates_are_paired_with_the_fewest_differences(seed):
    rng = np.random.default_rng(seed)
    ones, others = (
        [tuple(rng.integers(3, size=rng.integers(1, 5)).tolist()) for _ in range(5)]
        for _ in range(2)
    )
    best = min(sum(map(count_differing, ones, order)) for order in permutations(others))
    assert count_differing_candidates(ones, others) == best


def test_the_order_of_candidates_matters_only_for_the_best():
    reference = [[(1, 2), (3,), (3,)], [(4, 4)]]
    same = compare([[(3,), (1, 2), (3,)], [(4, 4)]], reference)
    assert same == {"tokens_compared": 6, "tokens_differing": 0, "sentences_differing": 1}
    other = compare([[(1, 2), (3,), (5,)], [(4, 6)]], reference)
    assert other == {"tokens_compared": 6, "tokens_differing": 2, "sentences_differing": 1}
