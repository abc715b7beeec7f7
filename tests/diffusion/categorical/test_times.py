"""Times of training and decoding."""

import math

import numpy as np
import pytest
import torch
from enumeration import STEPS

from difformer_plugin.diffusion.categorical.times import (
    decoding_times,
    training_times,
)
from difformer_plugin.diffusion.parameters import ParameterError
from difformer_plugin.diffusion.times import low_discrepancy

# training


@pytest.mark.parametrize("steps", [1, 8, 1000])
def test_times_of_steps(steps):
    u = torch.tensor([0.0, 0.3, 1 - 2**-24])
    s, t = training_times(u, steps)
    expected = [math.floor(x * steps) for x in u.double().tolist()]
    assert s.dtype == t.dtype == torch.float64
    assert s.tolist() == [k / steps for k in expected]
    assert t.tolist() == [(k + 1) / steps for k in expected]
    evenly = training_times((torch.arange(3 * steps) + 0.5) / (3 * steps), steps)[1]
    counts = np.bincount((evenly * steps).round().long().numpy(), minlength=steps + 1)
    assert counts.tolist() == [0] + [3] * steps


def test_times_without_steps():
    s, t = training_times(torch.tensor([0.0, 0.25, 1 - 2**-24]), None)
    assert t.tolist() == [1.0, 0.75, 2**-24] and (t > 0).all()


@pytest.mark.parametrize("start", [0.0, 0.37, 1 - 2**-24])
@pytest.mark.parametrize("count", [1, 2, 7, 64])
def test_low_discrepancy(start, count):
    """One number in each B-th of the unit interval, whatever the order; and all below 1."""
    order = torch.randperm(count)
    u = low_discrepancy(torch.tensor([start]), order)
    assert (u >= 0).all() and (u < 1).all()
    gaps = u.double().sort().values.diff()
    assert np.allclose(gaps, 1 / count, atol=1e-6)
    unordered = low_discrepancy(torch.tensor([start]), torch.arange(count))
    assert u.tolist() == unordered[order].tolist()


# decoding


@pytest.mark.parametrize("steps", [1, 2, 7, 8, 20, 50, 333])
def test_decoding_times_are_steps_of_the_model_spread_evenly(steps):
    for count in range(1, steps + 1):
        times = decoding_times(steps, count)
        assert len(times) == count + 1
        assert (times[0], times[-1]) == (0, 1)
        index = times * steps
        assert abs(index - index.round()).max() < 1e-9
        assert (np.diff(index.round()) >= 1).all()
        assert abs(times - np.linspace(0, 1, count + 1)).max() <= 0.5 / steps + 1e-12


def test_as_many_decoding_steps_as_diffusion_steps_are_all_of_them():
    assert decoding_times(STEPS, STEPS).tolist() == [i / STEPS for i in range(STEPS + 1)]
    assert decoding_times(STEPS, 4).tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert decoding_times(STEPS, 1).tolist() == [0, 1]


def test_decoding_times_in_continuous_time():
    for count in [1, 3, 10, 2000]:
        expected = [i / count for i in range(count + 1)]
        assert decoding_times(None, count).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("count", [0, 9, -1])
def test_decoding_steps_that_are_not_there_are_refused(count):
    with pytest.raises(ParameterError, match=f"decoding_steps .*1 and the model's 8 .*{count}"):
        decoding_times(STEPS, count)
