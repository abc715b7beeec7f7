"""In how many tokens two outputs of the same sentences differ."""

from collections import Counter
from itertools import zip_longest

import numpy as np
from scipy.optimize import linear_sum_assignment


def differing(a, b):
    """Positions at which two sequences of tokens differ; what only one of them has, differs."""
    return sum(x != y for x, y in zip_longest(a, b))


def differing_candidates(ones, others):
    """Differing tokens of two sets of candidates, paired so that they are fewest.

    Which candidate of the one is which of the other is not known: they are sorted by their score.

    Args:
        ones, others: equally many tuples of tokens.
    """
    left = list((Counter(ones) - Counter(others)).elements())
    right = list((Counter(others) - Counter(ones)).elements())
    if not left:
        return 0
    costs = np.array([[differing(a, b) for b in right] for a in left])
    return int(costs[linear_sum_assignment(costs)].sum())


def compare(outputs, reference):
    """How outputs differ from those of the reference.

    Args:
        outputs, reference: for each sentence its candidates, tuples of tokens, the best first.
    Returns:
        a dictionary: tokens of all candidates, how many of them differ, and how many sentences have
        another best candidate.
    """
    return {
        "tokens_compared": sum(len(tokens) for candidates in reference for tokens in candidates),
        "tokens_differing": sum(map(differing_candidates, outputs, reference)),
        "sentences_differing": sum(a[0] != b[0] for a, b in zip(outputs, reference)),
    }
