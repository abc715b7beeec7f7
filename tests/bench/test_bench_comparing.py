from itertools import permutations

import numpy as np
import pytest

from difformer_plugin.bench.comparing import compare, differing, differing_candidates


def test_positions_differ_also_where_one_sequence_has_ended():
    assert differing((1, 2, 3), (1, 2, 3)) == 0
    assert differing((1, 2, 3), (1, 5, 3)) == 1
    assert differing((1, 2, 3), (1,)) == 2
    assert differing((), (4, 4)) == 2


@pytest.mark.parametrize("seed", range(5))
def test_candidates_are_paired_so_that_fewest_tokens_differ(seed):
    rng = np.random.default_rng(seed)
    ones, others = (
        [tuple(rng.integers(3, size=rng.integers(1, 5)).tolist()) for _ in range(5)]
        for _ in range(2)
    )
    best = min(sum(map(differing, ones, order)) for order in permutations(others))
    assert differing_candidates(ones, others) == best


def test_the_order_of_candidates_does_not_matter_but_for_the_best():
    reference = [[(1, 2), (3,), (3,)], [(4, 4)]]
    same = compare([[(3,), (1, 2), (3,)], [(4, 4)]], reference)
    assert same == {"tokens_compared": 6, "tokens_differing": 0, "sentences_differing": 1}
    other = compare([[(1, 2), (3,), (5,)], [(4, 6)]], reference)
    assert other == {"tokens_compared": 6, "tokens_differing": 2, "sentences_differing": 1}
