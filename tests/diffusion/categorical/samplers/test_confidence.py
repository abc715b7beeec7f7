"""Unmasking in the order of confidence: how many masks are left, and mask-predict."""

import math

import numpy as np
import pytest
import torch
from score_chains import make
from token_sampling import (
    BOS,
    EOS,
    FIRST_TYPE,
    LENGTHS,
    laid_out,
    reads_all,
    run,
    split,
    vocabulary,
)

from difformer_plugin.diffusion.categorical.draft import Draft
from difformer_plugin.diffusion.categorical.samplers.confidence import Confidence
from difformer_plugin.diffusion.categorical.times import decoding_times
from difformer_plugin.diffusion.ranking import rank_in_rows
from difformer_plugin.diffusion.schedules import SCHEDULES

COSINE = SCHEDULES["cosine"].normalised()
LOG_LINEAR = SCHEDULES["log_linear"].normalised()


def confident(schedule, steps, types=6, **options):
    temperature = options.pop("temperature", 0.7)
    process = make("absorbing", schedule, types)
    times = decoding_times(steps, steps)
    return Confidence(
        process,
        times,
        vocabulary(types),
        lambda prediction: prediction,
        temperature=temperature,
        **options,
    )


@pytest.mark.parametrize("remasking", [False, True])
@pytest.mark.parametrize("schedule", [LOG_LINEAR, COSINE], ids=["log_linear", "cosine"])
@pytest.mark.parametrize("padded", [False, True])
def test_so_many_masks_are_left(schedule, remasking, padded):
    own, layout = confident(schedule, 9, remasking=remasking), laid_out(padded)
    states, _ = run(own, layout, len(LENGTHS))
    changed, before = 0, None
    for taken, state in enumerate(states, 1):
        s = 1 - taken / 9
        angle = math.cos((s + 0.008) / 1.008 * math.pi / 2) / math.cos(0.008 / 1.008 * math.pi / 2)
        alpha = 1 - s if schedule is LOG_LINEAR else angle**2
        now = [tokens for tokens, _ in split(state, layout)]
        for length, tokens in zip(LENGTHS, now):
            masks = (tokens == own.vocabulary.mask).sum()
            assert masks == math.floor((1 - alpha) * (length - 2) + 1e-9)
        if before is not None:
            for old, new in zip(before, now):
                changed += int(((old != new) & (old != own.vocabulary.mask)).sum())
        before = now
    assert (changed > 0) == remasking


def least_likely_first(steps, layout, remasking, distinct, types=6):
    """Masks filled with the likeliest types, of which the least likely become masks again."""
    mask, results = FIRST_TYPE + types, []
    state = Draft(torch.full((sum(LENGTHS),), mask), torch.zeros(sum(LENGTHS)))
    ends = np.cumsum(LENGTHS)
    for length, end in zip(LENGTHS, ends):
        state.tokens[end - length], state.tokens[end - 1] = BOS, EOS
    for t in range(1, steps + 1):
        log_p = reads_all(state, layout, types, distinct=distinct).log_softmax(-1)
        tokens, scores = state.tokens.tolist(), state.log_probs.tolist()
        masked = [token == mask for token in tokens]
        for i, was in enumerate(masked):
            if was:
                scores[i], best = (x.item() for x in log_p[i].max(-1))
                tokens[i] = FIRST_TYPE + best
        for length, end in zip(LENGTHS, ends):
            words = range(end - length + 1, end - 1)
            n = len(words) * (steps - t) // steps
            again = words if remasking else [i for i in words if masked[i]]
            for i in sorted(again, key=lambda i: scores[i])[:n]:
                tokens[i], scores[i] = mask, 0.0
        state = Draft(torch.tensor(tokens), torch.tensor(scores))
        results.append(state)
    return results


@pytest.mark.parametrize("distinct", [None, 3], ids=["", "ties"])
@pytest.mark.parametrize("steps", [1, 4, 10])
@pytest.mark.parametrize("padded", [False, True])
def test_with_remasking_and_no_temperature_it_is_mask_predict(padded, steps, distinct):
    """Ghazvininejad et al. (2019), Sec. 3.2, n = N (T - t) / T; ties in order of position."""
    own, layout = confident(LOG_LINEAR, steps, remasking=True, temperature=0), laid_out(padded)
    states, _ = run(own, layout, len(LENGTHS), distinct=distinct)
    expected = least_likely_first(steps, laid_out(False), True, distinct)
    for state, slow in zip(states, expected, strict=True):
        for (x, p), (y, q) in zip(split(state, layout), split(slow, laid_out(False))):
            assert x.equal(y)
            torch.testing.assert_close(p, q)


@pytest.mark.parametrize("distinct", [None, 3], ids=["", "ties"])
def test_without_remasking_the_least_likely_new_tokens_wait(distinct):
    own, layout = confident(LOG_LINEAR, 10, temperature=0), laid_out(False)
    states, _ = run(own, layout, len(LENGTHS), distinct=distinct)
    expected = least_likely_first(10, layout, False, distinct)
    assert all(a.tokens.equal(b.tokens) for a, b in zip(states, expected, strict=True))
    remasked = least_likely_first(10, layout, True, distinct)
    assert any(not a.tokens.equal(b.tokens) for a, b in zip(states, remasked))


def test_ranks_in_rows():
    random = np.random.default_rng(0)
    for count in (1, 2, 60):
        rows = np.sort(random.integers(0, 9, count))
        values = random.choice([0.5, -1.5, 2.0, np.inf], count)
        expected = [
            sum(
                rows[j] == rows[i] and (values[j] < values[i] or (values[j] == values[i] and j < i))
                for j in range(count)
            )
            for i in range(count)
        ]
        found = rank_in_rows(torch.from_numpy(values), torch.from_numpy(rows))
        assert found.tolist() == expected
