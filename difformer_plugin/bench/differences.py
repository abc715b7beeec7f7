"""Count the tokens in which two outputs for the same sentences differ."""

from collections import Counter
from collections.abc import Sequence
from itertools import zip_longest

import numpy as np
from scipy.optimize import linear_sum_assignment

Tokens = tuple[int, ...]


def count_differing(a: Sequence[int], b: Sequence[int]) -> int:
    """Positions at which two token sequences differ; surplus tokens of the longer one count."""
    return sum(x != y for x, y in zip_longest(a, b))


def count_differing_candidates(ones: Sequence[Tokens], others: Sequence[Tokens]) -> int:
    """Differing tokens of two sets of candidates under the pairing with the fewest differences.

    Candidates have to be paired because they are sorted by score, so their positions do not tell
    which candidates of the two sets belong together.

    Args:
        ones, others: equally many candidates.
    """
    left = list((Counter(ones) - Counter(others)).elements())
    right = list((Counter(others) - Counter(ones)).elements())
    if not left:
        return 0
    costs = np.array([[count_differing(a, b) for b in right] for a in left])
    return int(costs[linear_sum_assignment(costs)].sum())


def compare(
    outputs: Sequence[Sequence[Tokens]], reference: Sequence[Sequence[Tokens]]
) -> dict[str, int]:
    """Compare the outputs of two systems.

    Args:
        outputs, reference: the candidates of each sentence, best first.
    Returns:
        a dictionary: `tokens_compared` (in all candidates), `tokens_differing`, and
        `sentences_differing` (those with another best candidate).
    """
    return {
        "tokens_compared": sum(len(tokens) for candidates in reference for tokens in candidates),
        "tokens_differing": sum(map(count_differing_candidates, outputs, reference)),
        "sentences_differing": sum(a[0] != b[0] for a, b in zip(outputs, reference)),
    }
