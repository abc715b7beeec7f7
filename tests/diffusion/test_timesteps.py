"""The times of decoding: lists as they are typed, and grids."""

import itertools

import numpy as np
import pytest

from difformer_plugin.diffusion.categorical.times import decoding_times
from difformer_plugin.diffusion.gaussian.process import GaussianProcess, spaced_timesteps
from difformer_plugin.diffusion.parameters import ParameterError
from difformer_plugin.diffusion.timesteps import (
    GRIDS,
    chosen_times,
    distinct,
    grid_names,
    listed_times,
)


@pytest.mark.parametrize(
    "text, times",
    [
        ("2000,900,300", [2000, 900, 300]),
        (" 2000, 900 ,300 ", [2000, 900, 300]),
        ("[2000, 900, 300]", [2000, 900, 300]),
        ("7", [7]),
        ("1,0.4", [1, 0.4]),
        ("uniform", None),
        ("quadratic", None),
        ("square_root", None),
    ],
)
def test_lists_and_names(text, times):
    assert listed_times(text) == times


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "cubic", "Uniform", "2000 900", "2000,", "2000;900", "[2000, 900", "2000-900"),
        *("900,2000", "900,900", "2000,0", "2000,-1", "[]", "[[3]]", "[true]", "null", '["3"]'),
        *("NaN", "3,NaN", "{}", "\n"),
    ],
)
def test_other_texts_are_refused(text):
    with pytest.raises(ParameterError, match="uniform, quadratic.* falling times above 0"):
        listed_times(text)


@pytest.mark.parametrize(
    "text, steps, said",
    [
        ("9,3", 8, "whole numbers from 1 to the model's 8 steps, not 9"),
        ("Infinity,3", 8, "whole numbers"),
        ("8,2.5", 8, "whole numbers .* not 2.5"),
        ("0.5", 8, "whole numbers .* not 0.5"),
        ("2,0.5", None, r"in \(0, 1\].* not 2"),
    ],
)
def test_times_that_a_model_has_not(text, steps, said):
    with pytest.raises(ParameterError, match=said):
        decoding_times(steps, len(listed_times(text)), text)
    if steps is not None:
        process = GaussianProcess.create("sqrt", steps)
        with pytest.raises(ParameterError, match=said):
            process.spaced(len(listed_times(text)), text)


def test_the_formulas_of_the_grids():
    """k^2 T / K^2 and sqrt(k / K) T."""
    assert chosen_times("quadratic", 2000, 4).tolist() == [125, 500, 1125, 2000]
    assert chosen_times("quadratic", None, 2).tolist() == [0.25, 1]
    assert chosen_times("square_root", 2000, 4).tolist() == [1000, 1414, 1732, 2000]
    assert chosen_times("square_root", None, 4).tolist() == pytest.approx(
        [0.5, 0.5**0.5, 0.75**0.5, 1]
    )


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("steps", [1, 2, 9, 50])
def test_a_grid_has_distinct_steps_of_the_model(grid, steps):
    """K of them that end at T, for every K; for K = T all."""
    for count in range(1, steps + 1):
        times = chosen_times(grid, steps, count)
        assert len(times) == count and times[-1] == steps and times[0] >= 1
        assert (times == times.round()).all() and (np.diff(times) >= 1).all()
    assert times.tolist() == list(range(1, steps + 1))


def test_distinct_steps_by_brute_force():
    """No other choice of K distinct steps would move less than the first that has to move."""
    for values in itertools.combinations_with_replacement([0.2, 1.4, 1.6, 3.5, 4.9, 5.0], 3):
        found = distinct(np.array(values), 5)
        assert (np.diff(found) >= 1).all() and found[0] >= 1 and found[-1] <= 5
        rounded = np.round(values)
        if (np.diff(rounded) >= 1).all() and rounded[0] >= 1:
            assert (found == rounded).all()


@pytest.mark.parametrize("schedule", ["sqrt", "positional"])
def test_listed_steps_of_a_gaussian_process(schedule):
    process = GaussianProcess.create(schedule, 100, 3.0)
    own = process.spaced(3, "100,60,1")
    assert own.timesteps.tolist() == [0, 59, 99]
    assert own.times.tolist() == [0, 0.59, 0.99]
    listed = ",".join(str(t + 1) for t in spaced_timesteps(100, 7)[::-1])
    assert (process.spaced(7, listed).timesteps == process.spaced(7).timesteps).all()
    whole = process.spaced(100, ",".join(map(str, range(100, 0, -1))))
    assert (whole.timesteps == process.spaced(100).timesteps).all()


@pytest.mark.parametrize("steps", [8, None])
def test_listed_times_of_tokens(steps):
    """The ends of the steps: the last of them goes from the last time to 0."""
    text = "8,4,1" if steps else "1,0.5,0.125"
    assert decoding_times(steps, 3, text).tolist() == [0, 0.125, 0.5, 1]
    even = decoding_times(8, 8)[:0:-1] * (8 if steps else 1)
    listed = ",".join(f"{t:g}" for t in even)
    assert decoding_times(steps, 8, listed).tolist() == decoding_times(steps, 8).tolist()


def test_the_uniform_grid_comes_first():
    assert grid_names()[0] == "uniform" and set(grid_names()[1:]) == set(GRIDS)
