"""What the tests of models of tokens share: indices, batches, frequencies."""

import numpy as np
import pytest
import torch
from discrete_kinds import FIXED, KINDS
from scipy import stats

BOS, PAD, EOS, UNK = 0, 1, 2, 3
SOURCES, TARGETS = [5, 2, 9, 4, 7, 1], [3, 6, 8, 1, 2, 2]  # lengths of six sentences
kinds = pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)
fixed = pytest.mark.parametrize("options", FIXED.values(), ids=FIXED)


def batch_of(count, length, dictionary, seed):
    """Framed sentences of random tokens, int64 (count, length + 2)."""
    random = torch.Generator().manual_seed(seed)
    words = torch.randint(UNK, len(dictionary), (count, length), generator=random)
    ends = [torch.full((count, 1), end) for end in (BOS, EOS)]
    return torch.cat([ends[0], words, ends[1]], dim=1)


def fits(counts, probs):
    """Whether counts may come from a distribution, by a chi-squared test."""
    counts, never = np.asarray(counts), np.asarray(probs) < 1e-9
    expected = np.asarray(probs)[~never] / np.sum(np.asarray(probs)[~never]) * counts.sum()
    possible = len(expected) == 1 or stats.chisquare(counts[~never], expected).pvalue > 1e-3
    return possible and not counts[never].any()
