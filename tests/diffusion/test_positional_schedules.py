"""Position-dependent schedules against their formula, and their laws at all lengths."""

import numpy as np
import pytest
import torch
from scipy.stats import norm

from difformer_plugin.diffusion.parameters import ParameterError
from difformer_plugin.diffusion.positional_schedules import (
    POSITIONAL_SCHEDULES,
    check_gaussian_schedule,
    gaussian_schedule_names,
    positional,
    register_positional_schedule,
)
from difformer_plugin.diffusion.schedules import GAUSSIAN, rescale_alpha_bar, schedule_names
from difformer_plugin.tuning import defaults

STEPS = 500


def table(length, function=positional):
    """alpha-bar at the times 1/T, ..., 1 and at all positions, (T, M)."""
    times = np.arange(1, STEPS + 1)[:, None] / STEPS
    return function(times, np.arange(1.0, length + 1), np.float64(length))


def eq_3_3(length):
    """The thesis's, whose time runs from noise to data: its i-th step is our (T - i)-th."""
    i = STEPS - np.arange(1, STEPS + 1)[:, None]
    sigma = 1 / (length + 5)
    mu = np.array([(3 + k) * sigma for k in range(1, length + 1)])
    return norm.cdf((i / STEPS - mu) / sigma)


@pytest.mark.parametrize("length", [2, 7, 25])
def test_formula_of_the_thesis_where_it_is_not_cut_off(length):
    ours, theirs = table(length), eq_3_3(length)
    plain = 1 - theirs >= 0.02
    np.testing.assert_allclose(ours[plain], theirs[plain], rtol=1e-6, atol=1e-60)
    assert 0.2 < plain.mean() < 0.95


@pytest.mark.parametrize("length", [1, 7, 25])
def test_a_small_variance_falls_linearly_to_its_end(length):
    variance, theirs = 1 - table(length), 1 - eq_3_3(length)
    end = 1 - norm.cdf(length + 2 - np.arange(1, length + 1))
    for k in range(length):
        low = variance[:, k][theirs[:, k] < 0.02]
        if len(low) > 2:
            t = np.arange(1, len(low) + 1) / STEPS
            np.testing.assert_allclose(low, end[k] + (low[0] - end[k]) * t * STEPS, atol=1e-12)
            slope = low[1] - low[0]
            assert low[-1] <= 0.02 <= low[-1] + 1.01 * slope  # it meets the other part at 0.02
    # the last token begins above the cut-off
    assert (theirs[:, -1] >= 0.02).all()


@pytest.mark.parametrize("length", [1, 2, 9, 40, 256, 1024])
def test_alpha_bar_is_inside_0_and_1_and_falls_in_time(length):
    alpha_bar = table(length)
    assert (alpha_bar > 0).all() and (alpha_bar < 1).all()
    assert (np.diff(alpha_bar, axis=0) < 0).all()
    assert (np.diff(alpha_bar, axis=1) < 0).all()  # early tokens are noised last
    assert np.isfinite(np.log(alpha_bar)).all() and (1 - alpha_bar >= 1e-6).all()


def test_tokens_are_noised_one_after_another():
    """Half of the signal is left at the times 1 - mu_k, which are sigma apart."""
    length, times = 10, np.linspace(0, 1, 15_001)[1:]
    alpha_bar = positional(times[:, None], np.arange(1.0, length + 1), np.float64(length))
    halves = times[(alpha_bar > 0.5).sum(0)]
    np.testing.assert_allclose(halves, 1 - (3 + np.arange(1, length + 1)) / 15, atol=2e-4)


def test_arrays_and_tensors_give_the_same():
    length, times = 30, np.arange(1, STEPS + 1)[:, None] / STEPS
    arguments = times, np.arange(1.0, length + 1), np.float64(length)
    ours = positional(*(torch.from_numpy(np.asarray(a)) for a in arguments))
    np.testing.assert_allclose(ours.numpy(), positional(*arguments), rtol=1e-9)


def test_padding_has_finite_values():
    values = positional(np.array([[0.01], [0.5], [1.0]]), np.arange(1.0, 41), np.float64(3))
    assert np.isfinite(values).all() and (values > 0).all() and (values < 1).all()


def test_equation_8_divides_the_signal_to_noise_ratio_by_the_square_of_f():
    alpha_bar = table(5)
    rescaled = rescale_alpha_bar(alpha_bar, 3.0)
    np.testing.assert_allclose(rescaled / (1 - rescaled), alpha_bar / (1 - alpha_bar) / 9)


# the registry


def test_names_are_those_of_both_registries():
    assert gaussian_schedule_names() == [*schedule_names(GAUSSIAN), "positional"]
    with pytest.raises(ParameterError, match="linear, .*positional, not 'sigmoid'"):
        check_gaussian_schedule("sigmoid")


def test_a_registered_schedule_is_offered(monkeypatch):
    monkeypatch.setattr(
        "difformer_plugin.diffusion.positional_schedules.POSITIONAL_SCHEDULES",
        dict(POSITIONAL_SCHEDULES),
    )

    @register_positional_schedule
    def right_to_left(t, k, length):
        return positional(t, length + 1 - k, length)

    check_gaussian_schedule("right_to_left")
    np.testing.assert_allclose(table(6, right_to_left), table(6)[:, ::-1])


def test_the_command_knows_the_typical_length():
    from difformer_plugin.diffusion.positional_schedules import TYPICAL_LENGTH

    assert defaults.TARGET_LENGTH == TYPICAL_LENGTH
