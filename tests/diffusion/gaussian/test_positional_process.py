"""Noise that depends on the position: against processes of one number, matrices and known laws."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from difformer_plugin.diffusion.gaussian.process import (
    GaussianProcess,
    PositionalProcess,
    ScalarProcess,
)
from difformer_plugin.diffusion.gaussian.samplers.ancestral import Ancestral
from difformer_plugin.diffusion.gaussian.samplers.confidence import Confidence
from difformer_plugin.diffusion.gaussian.samplers.ddim import DDIM
from difformer_plugin.diffusion.gaussian.samplers.dpm_solver import DPMSolver
from difformer_plugin.diffusion.positional_schedules import positional
from difformer_plugin.diffusion.schedules import rescale_alpha_bar
from difformer_plugin.networks.layout import Layout

STEPS, FACTOR = 60, 1.5
FORMS = {"eq. 3": (FACTOR, False), "eq. 8": (FACTOR, True)}
LENGTHS = [5, 2, 7]
SAMPLERS = [
    (Ancestral, {}),
    (DDIM, {}),
    (DDIM, {"eta": 0.6}),
    (DDIM, {"eta": 1.0}),
    (DPMSolver, {}),
]


def packed(lengths=LENGTHS):
    return Layout(lengths, list(range(len(lengths))), torch.device("cpu"))


def process(form="eq. 3", steps=STEPS):
    return GaussianProcess.create("positional", steps, *FORMS[form])


def alphas_of(own, position, length):
    """alpha-bar (K,) of one token, by its formula."""
    times = (own.timesteps + 1) / own.diffusion_steps
    alphas = positional(times, np.float64(position + 1), np.float64(length))
    return rescale_alpha_bar(alphas, FACTOR if own.schedule_factor != 1 else 1.0)


def scalar(own, position, length):
    """The process of one number that a token has."""
    alphas = alphas_of(own, position, length)
    return ScalarProcess(alphas, own.timesteps, own.diffusion_steps, own.noise_scale)


def tokens_of(layout):
    """Number, candidate, position and length of each token."""
    lengths = layout.lengths[layout.rows].tolist()
    return zip(range(len(lengths)), layout.rows.tolist(), layout.positions.tolist(), lengths)


def randn(*shape):
    return torch.randn(*shape, dtype=torch.float64)


# one number for all


@pytest.fixture
def equal_processes():
    """A positional process of which all alpha-bars are equal, and that of one number."""
    timesteps = np.arange(STEPS)

    def flat(t, k, length):
        return (1 - 0.9 * t) ** 2 + 0 * k + 0 * length

    alphas = flat((timesteps + 1) / STEPS, 1.0, 1.0)
    return (
        PositionalProcess(flat, timesteps, STEPS, FACTOR),
        ScalarProcess(alphas, timesteps, STEPS, FACTOR),
    )


@pytest.mark.parametrize("kind, settings", [*SAMPLERS, (Confidence, {})])
def test_equal_alpha_bars_are_one_number(equal_processes, kind, settings):
    layout = packed()
    table = randn(9, 3)

    def nearest(z):
        log_probs, types = (z @ table.T).log_softmax(1).max(1)
        return types, table[types], log_probs

    ours, theirs = (kind(own.spaced(8), nearest, **settings) for own in equal_processes)
    noise, z_0_hats = randn(9, 14, 3), randn(9, 14, 3)
    z = w = ours.prior(lambda: noise[8], layout)
    previous = None
    for k in reversed(range(8)):
        if kind is Confidence:
            torch.testing.assert_close(z.clean, w.clean)
            torch.testing.assert_close(z.z, w.z)
        else:
            torch.testing.assert_close(z, w)
        z, w = (
            s.step(state, z_0_hats[k], k, lambda k=k: noise[k], layout, previous)
            for s, state in ((ours, z), (theirs, w))
        )
        previous = z_0_hats[k]
    finished = [s.finish(state, previous, 0, None, layout) for s, state in ((ours, z), (theirs, w))]
    if kind is Confidence:
        finished = [state.z for state in finished]
    torch.testing.assert_close(*finished)


def test_equal_alpha_bars_corrupt_as_one_number(equal_processes):
    mask = torch.arange(7) < torch.tensor(LENGTHS)[:, None]
    layout, z_0, noise = Layout.dense(mask), randn(3, 7, 4), randn(3, 7, 4)
    t, s = torch.tensor([3, 30, 58]), torch.tensor([5, 30, 59])
    samples = [own.q_sample(z_0, t, noise, layout) for own in equal_processes]
    torch.testing.assert_close(*samples)
    steps = [own.q_step(samples[0], t, s, noise, layout) for own in equal_processes]
    torch.testing.assert_close(*steps)
    for k in (0, 1, 30):
        for one, other in zip(*(own.posterior(k, layout) for own in equal_processes)):
            np.testing.assert_allclose(one.numpy(), other)


# a number for each token


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind, settings", SAMPLERS)
def test_each_token_is_sampled_as_alone(form, kind, settings):
    """A diagonal matrix: every token goes its own way, by the process of its own number."""
    own, layout = process(form).spaced(9), packed()
    noise, z_0_hats = randn(10, 14, 3), randn(10, 14, 3)

    def run(sampler, layout, tokens):
        z = sampler.prior(lambda: noise[9, tokens], layout)
        previous = None
        for k in reversed(range(9)):
            prediction = z_0_hats[k, tokens]
            z = sampler.step(z, prediction, k, lambda k=k: noise[k, tokens], layout, previous)
            previous = prediction
            states.append(z)

    states = []
    run(kind(own, **settings), layout, slice(None))
    together, states = torch.stack(states), []
    assert together.isfinite().all()
    for i, _, position, length in tokens_of(layout):
        states = []
        run(kind(scalar(own, position, length), **settings), None, slice(i, i + 1))
        torch.testing.assert_close(together[:, i : i + 1], torch.stack(states))


@pytest.mark.parametrize("form", FORMS)
def test_each_token_is_corrupted_as_alone(form):
    """Padded and packed."""
    own, mask = process(form), torch.arange(7) < torch.tensor(LENGTHS)[:, None]
    z_0, noise, other = randn(3, 3, 7, 4).unbind(0)
    t, s = torch.tensor([3, 30, 58]), torch.tensor([5, 30, 59])
    dense, layout = Layout.dense(mask), Layout.packed(mask)
    z_t = own.q_sample(z_0, t, noise, dense)
    z_s = own.q_step(z_t, t, s, other, dense)
    of_packed = own.q_sample(layout.take(z_0), t, layout.take(noise), layout)
    torch.testing.assert_close(of_packed, layout.take(z_t), rtol=0, atol=0)
    further = own.q_step(of_packed, t, s, layout.take(other), layout)
    torch.testing.assert_close(further, layout.take(z_s), rtol=0, atol=0)
    for i, row, position, length in tokens_of(layout):
        alone = scalar(own, position, length)
        place = (row, slice(position, position + 1))
        once = alone.q_sample(z_0[place][None], t[row : row + 1], noise[place][None])
        torch.testing.assert_close(of_packed[i], once[0, 0])
        again = alone.q_step(once, t[row : row + 1], s[row : row + 1], other[place][None])
        torch.testing.assert_close(further[i], again[0, 0])


def test_one_step_for_all_is_the_same_step_for_each():
    own, layout = process(), packed()
    for k in (0, 17, STEPS - 1):
        steps = torch.full((3,), k)
        torch.testing.assert_close(own.alpha_bar(steps, layout), own.alpha_bar(k, layout))
        flat = GaussianProcess.create("sqrt", STEPS)
        assert (flat.alpha_bar(steps, layout) == flat.alpha_bar(k, layout)).all()


def test_places_need_not_be_those_of_a_layout():
    """A prefix that is given does not count: its positions are below 0, and M leaves it out."""
    own = process()
    places = SimpleNamespace(
        positions=torch.tensor([-2, -1, 0, 1, 2, -1, 0, 1]),
        rows=torch.tensor([0, 0, 0, 0, 0, 1, 1, 1]),
        lengths=torch.tensor([3, 2]),
    )
    layout, target = packed([3, 2]), places.positions >= 0
    for k in (0, 20, STEPS - 1):
        alpha_bar = own.alpha_bar(k, places)
        torch.testing.assert_close(alpha_bar[target], own.alpha_bar(k, layout))
        assert alpha_bar.isfinite().all()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("k", [1, 4, 8])
def test_posterior_is_that_of_bayes_with_matrices(form, k):
    """q(z_s | z_t, z_0) is proportional to q(z_t | z_s) q(z_s | z_0), all with full matrices."""
    own, length = process(form).spaced(9), 6
    layout, scale = packed([length]), own.noise_scale
    at_s, at_t = (
        np.diag([alphas_of(own, i, length)[j] for i in range(length)]) for j in (k - 1, k)
    )
    z_0, z_t = np.random.default_rng(1).normal(size=(2, length))
    identity, ratio = np.eye(length), at_t @ np.linalg.inv(at_s)
    inverse_of_prior = np.linalg.inv(scale**2 * (identity - at_s))
    inverse_of_step = np.linalg.inv(scale**2 * (identity - ratio))
    covariance = np.linalg.inv(np.sqrt(ratio) @ inverse_of_step @ np.sqrt(ratio) + inverse_of_prior)
    mean = covariance @ (
        np.sqrt(ratio) @ inverse_of_step @ z_t + inverse_of_prior @ np.sqrt(at_s) @ z_0
    )
    xi, lam, deviation = (x.numpy()[:, 0] for x in own.posterior(k, layout))
    np.testing.assert_allclose(xi * z_0 + lam * z_t, mean, rtol=1e-7, atol=1e-12)
    np.testing.assert_allclose(deviation**2, np.diag(covariance), rtol=1e-7)


def test_a_step_keeps_the_precision_of_the_latents():
    own, layout = process().spaced(5), packed()
    for kind, settings in SAMPLERS:
        z, z_0_hat = torch.randn(14, 3), torch.randn(14, 3)
        z_s = kind(own, **settings).step(z, z_0_hat, 3, lambda: torch.randn(14, 3), layout, z_0_hat)
        assert z_s.dtype == torch.float32


@pytest.mark.parametrize("length", [1, 30, 300])
@pytest.mark.parametrize("steps", [1, 2, 20, 2000])
def test_steps_are_finite_at_every_length_and_number_of_steps(length, steps):
    own, layout = GaussianProcess.create("positional", 2000, 4.0).spaced(steps), packed([length])
    for kind, settings in SAMPLERS:
        sampler = kind(own, **settings)
        z, previous = torch.ones(length, 1), None
        for k in sorted({*range(min(steps, 3)), *range(0, steps, 191), steps - 1}, reverse=True):
            if k == steps - 1:
                previous = None
            z = sampler.step(
                z, torch.ones_like(z), k, lambda: torch.ones(length, 1), layout, previous
            )
            assert z.isfinite().all() and z.abs().max() < 50
            previous = torch.ones_like(z)


# a known law

MEAN = np.array([1.0, -0.5, 0.3, 2.0])
ROOT = np.array([[0.8, 0, 0, 0], [0.5, 0.4, 0, 0], [-0.2, 0.3, 0.6, 0], [0.1, 0.1, -0.4, 0.5]])
COVARIANCE = ROOT @ ROOT.T


def law_of(root):
    """Mean and covariance of z_t for z_0 ~ N(MEAN, COVARIANCE), from the roots of alpha-bar."""
    noise = FACTOR**2 * np.diag(1 - root[:, 0] ** 2)
    return root[:, 0] * MEAN, root * COVARIANCE * root.T + noise


def error_of_sampling(kind, settings, steps):
    """How far the law of the last z_t is from that of the data, which the forward process made.

    The tokens depend on each other, as those of a sentence. The best prediction E[z_0 | z_t] of a
    normal target is linear in z_t, and so is a step: it is applied to unit vectors, which are the
    columns of z.
    """
    own, layout = GaussianProcess.create("positional", 2000, FACTOR).spaced(steps), packed([4])
    sampler = kind(own, **settings)

    def root(k):
        return own.alpha_bar(k, layout).numpy() ** 0.5

    def predict(z, k):
        mean, covariance = law_of(root(k))
        gain = (COVARIANCE * root(k).T) @ np.linalg.inv(covariance)
        return torch.from_numpy(MEAN[:, None] + gain @ (z.numpy() - mean[:, None]))

    zero = torch.zeros(4, 5, dtype=torch.float64)
    columns = torch.cat([zero[:, :1], torch.eye(4, dtype=torch.float64)], 1)
    mean, covariance = np.zeros(4), FACTOR**2 * np.eye(4)
    z, previous = FACTOR * columns, None  # where each column is after the steps so far
    for k in range(steps - 1, 0, -1):
        if kind is DPMSolver:  # it draws no noise, but remembers
            prediction = predict(z, k)
            z = sampler.step(z, prediction, k, None, layout, previous)
            previous = prediction
            continue
        prediction = predict(columns, k)
        after = sampler.step(columns, prediction, k, lambda: zero, layout)
        noisy = sampler.step(columns, prediction, k, lambda: zero + 1, layout)
        matrix, deviation = linear_part(after), (noisy - after)[:, 0].numpy()
        mean = matrix @ mean + after[:, 0].numpy()
        covariance = matrix @ covariance @ matrix.T + np.diag(deviation**2)
    if kind is DPMSolver:
        mean, covariance = z[:, 0].numpy(), linear_part(z) @ linear_part(z).T
    expected = law_of(root(0))
    return max(np.abs(ours - law).max() for ours, law in zip((mean, covariance), expected))


def linear_part(columns):
    return (columns[:, 1:] - columns[:, :1]).numpy()


@pytest.mark.parametrize("kind, settings", SAMPLERS)
def test_the_best_prediction_draws_the_law_of_the_data(kind, settings):
    errors = [error_of_sampling(kind, settings, steps) for steps in (50, 200)]
    assert errors[1] < 0.03 and errors[1] < 0.5 * errors[0]
