"""Schedules by information, against joint distributions of x_t and x_0."""

import numpy as np
import pytest
import torch
from enumeration import STEPS, UNIGRAM, build, entropy

from difformer_plugin.diffusion.categorical.information import uniform_mutual_information
from difformer_plugin.diffusion.schedules import SCHEDULES

LOG_LINEAR = SCHEDULES["log_linear"].normalised()
COSINE = SCHEDULES["cosine"].normalised()


def information(kind, schedule, step, steps=STEPS, unigram=UNIGRAM):
    """I(x_t; x_0) in nats from the joint distribution of both."""
    _, chain = build(kind, schedule, len(unigram), steps)
    joint = unigram[:, None] * chain.between(0, step)[: len(unigram)]
    return entropy(joint.sum(0)) + entropy(unigram) - entropy(joint)


@pytest.mark.parametrize("unigram", [UNIGRAM, np.full(4, 0.25), np.array([0.999, 0.001, 0, 0])])
def test_uniform_information_falls_linearly(unigram):
    """I(x_t; x_0) = (1 - t) H(x_0) at all the tabulated times, a step each."""
    schedule, steps = uniform_mutual_information(torch.tensor(unigram)), 256
    assert len(schedule.values) == steps + 1
    for step in range(0, steps + 1, 16):
        expected = (1 - step / steps) * entropy(unigram)
        found = information("uniform", schedule, step, steps, unigram)
        assert found == pytest.approx(expected, rel=1e-9, abs=1e-13)


def test_uniform_information_is_near_its_line_between_the_tabulated_times():
    schedule, steps = uniform_mutual_information(torch.tensor(UNIGRAM)), 1000
    for step in [1, 3, 333, 501, 997, 999]:
        expected = (1 - step / steps) * entropy(UNIGRAM)
        found = information("uniform", schedule, step, steps)
        assert found == pytest.approx(expected, abs=2e-3 * entropy(UNIGRAM))


def test_absorbing_information_falls_linearly_with_log_linear():
    """As the paper says of 1 / (T - t + 1); another schedule does not do it."""
    for step in range(STEPS + 1):
        expected = (1 - step / STEPS) * entropy(UNIGRAM)
        found = information("absorbing", LOG_LINEAR, step)
        assert found == pytest.approx(expected, rel=1e-12, abs=1e-13)
    assert information("absorbing", COSINE, 4) < 0.999 * entropy(UNIGRAM) / 2


def test_other_schedules_do_not_take_the_information_evenly():
    assert information("uniform", LOG_LINEAR, 4) < 0.9 * entropy(UNIGRAM) / 2


def test_a_large_vocabulary_is_tabulated_at_once():
    """Counts by Zipf's law: 40,000 types, of which most are as rare as many others."""
    counts = (1e5 / torch.arange(1, 40_001, dtype=torch.float64)).floor() + 1
    unigram = counts / counts.sum()
    values = uniform_mutual_information(unigram).values
    assert (values[0], values[-1]) == (1, 0)
    assert (values.diff() < 0).all()
    for step in (1, 100, 250):
        other = (1 - values[step]) / len(unigram)
        conditional = -torch.special.xlogy(values[step] + other, values[step] + other)
        conditional -= (len(unigram) - 1) * other * other.log()
        found = torch.special.entr(values[step] * unigram + other).sum() - conditional
        assert found.item() == pytest.approx((1 - step / 256) * entropy(unigram.numpy()), rel=1e-9)
