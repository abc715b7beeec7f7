"""The exact degeneration score, against sampling, closed forms and its own limits."""

import math

import numpy as np
import pytest
from scipy import stats

from difformer_plugin.diffusion.gaussian import degeneration
from difformer_plugin.diffusion.gaussian.degeneration import (
    CLASSIFIERS,
    degeneration_scores,
    query_scale,
)
from difformer_plugin.diffusion.gaussian.rescaling import NoiseSeries, dgs
from difformer_plugin.diffusion.gaussian.sampled_degeneration import normal_scores
from difformer_plugin.diffusion.parameters import ParameterError
from difformer_plugin.diffusion.schedules import GAUSSIAN, schedule_names


def draw_setting(number):
    """A random setting whose score is neither 0 nor 1, where nothing could be seen."""
    random = np.random.default_rng(number)

    def log_uniform(low, high):
        return math.exp(random.uniform(math.log(low), math.log(high)))

    while True:
        series = NoiseSeries(
            str(random.choice(["linear", "cosine", "sqrt", "edm"])),
            vp_rf=bool(number % 2),
            stride=int(random.integers(150, 250)),
        )
        coefficients = series.coefficients(log_uniform(1, 20))
        setting = {
            "vocab_size": round(log_uniform(50, 40_000)),
            "latent_dim": round(log_uniform(16, 512)),
            "sigma": log_uniform(0.3, 3),
            "classifier": CLASSIFIERS[number // 2 % 2],
        }
        exact = degeneration_scores(*coefficients, **setting).mean()
        if 0.02 < exact < 0.98:
            return series.schedule, coefficients, setting, exact


@pytest.mark.parametrize(
    "number",
    [pytest.param(n, marks=[pytest.mark.slow] * (n >= 12)) for n in range(36)],
)
def test_exact_is_what_sampling_finds(number):
    """Within three standard errors, real tables being drawn."""
    _, coefficients, setting, exact = draw_setting(number)
    size = setting["vocab_size"] * setting["latent_dim"]
    tables = int(np.clip(2e7 / size, 16, 64))
    sampled, error = normal_scores(*coefficients, **setting, samples=16 * tables, tables=tables)
    assert abs(exact - float(sampled.mean())) < 3 * error
    assert error < 0.02


def test_settings_are_spread_out():
    drawn = [draw_setting(number) for number in range(36)]
    assert {schedule for schedule, *_ in drawn} == {"linear", "cosine", "sqrt", "edm"}
    sizes = [setting["vocab_size"] for _, _, setting, _ in drawn]
    assert min(sizes) < 100 and max(sizes) > 25_000
    dims = [setting["latent_dim"] for _, _, setting, _ in drawn]
    assert min(dims) < 25 and max(dims) > 350


@pytest.mark.parametrize("classifier", CLASSIFIERS)
@pytest.mark.parametrize("latent_dim", [16, 128, 512])
def test_two_tokens_follow_students_t(latent_dim, classifier):
    """With V = 2, u = (e_1 - e_0)/sqrt(2) and w = (e_1 + e_0)/sqrt(2) are independent, and the
    right one is nearer to c z_t where c a |u|^2 + (1 - c a) u.w > sqrt(2) c b u.noise. So given |u|
    the probability is Phi(k |u|), and the mean over |u|^2 ~ chi^2 (d) is Student's t with d."""
    alpha_bar = np.array([1.0, 0.9, 0.5, 0.1, 1e-3, 0.0])
    beta_bar = 9 * (1 - alpha_bar) + 0.05
    c = query_scale(classifier, latent_dim)
    a, b = np.sqrt(alpha_bar), np.sqrt(beta_bar)
    k = c * a / np.sqrt(2 * (c * b) ** 2 + (1 - c * a) ** 2)
    expected = stats.t.cdf(k * math.sqrt(latent_dim), latent_dim)
    found = degeneration_scores(alpha_bar, beta_bar, 2, latent_dim, classifier=classifier)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert found[-1] == pytest.approx(0.5, abs=1e-5)


@pytest.mark.parametrize("classifier", CLASSIFIERS)
@pytest.mark.parametrize("vocab_size", [1, 2, 50, 10_000, 1_000_000])
def test_pure_noise_leaves_a_guess(vocab_size, classifier):
    for scale in (0.5, 1.0, 30.0):
        (score,) = degeneration_scores([0.0], [scale], vocab_size, 64, classifier=classifier)
        assert score == pytest.approx(1 / vocab_size, rel=0.02)


def test_one_token_is_always_right():
    np.testing.assert_allclose(degeneration_scores([1.0, 0.5, 0.0], [0.0, 0.5, 1.0], 1, 16), 1.0)


@pytest.mark.parametrize("classifier", CLASSIFIERS)
@pytest.mark.parametrize("latent_dim", [16, 512])
def test_the_ends_are_numbers(latent_dim, classifier):
    """Of a schedule that starts without any noise and ends without any signal."""
    rest = np.array([0.0, 1e-300, 1e-30, 1e-16, 1e-12, 1e-8, 1e-4, 1e-2])
    for factor in (1.0, 100.0):
        alpha_bar = np.concatenate([1 - rest, rest[::-1]])
        beta_bar = factor**2 * np.concatenate([rest, 1 - rest[::-1]])
        for sigma in (1e-3, 1.0, 1e3):
            scores = degeneration_scores(alpha_bar, beta_bar, 40_000, latent_dim, sigma, classifier)
            assert np.isfinite(scores).all()
            assert (scores > 0).all() and (scores <= 1).all()


@pytest.mark.parametrize("latent_dim", [16, 128, 512])
def test_no_noise_is_no_task(latent_dim):
    (score,) = degeneration_scores([1.0], [0.0], 40_000, latent_dim, classifier="nearest")
    assert score == pytest.approx(1, abs=1e-8)


@pytest.mark.parametrize("classifier", CLASSIFIERS)
def test_score_falls_with_noise_and_vocabulary(classifier):
    series = NoiseSeries("cosine", stride=100)
    by_factor = [dgs(series, f, 5000, 64, 1.0, classifier) for f in (1, 2, 4, 8, 16, 64)]
    assert by_factor == sorted(by_factor, reverse=True)
    by_size = [dgs(series, 4, size, 64, 1.0, classifier) for size in (1, 2, 10, 1000, 100_000)]
    assert by_size == sorted(by_size, reverse=True)
    scores = degeneration_scores(*series.coefficients(2), 5000, 64, 1.0, classifier)
    assert (np.diff(scores) < 1e-6).all()


@pytest.mark.slow
@pytest.mark.parametrize("classifier", CLASSIFIERS)
@pytest.mark.parametrize("latent_dim", [16, 128, 512])
def test_quadrature_has_converged(latent_dim, classifier, monkeypatch):
    """The errors that the module states, against twice its nodes."""
    settings = [
        (NoiseSeries(name, stride=333).coefficients(factor), vocab_size)
        for name in schedule_names(GAUSSIAN)
        for factor, vocab_size in ((1, 40_000), (5, 1000))
    ]

    def scores():
        return [
            degeneration_scores(*coefficients, vocab_size, latent_dim, classifier=classifier)
            for coefficients, vocab_size in settings
        ]

    coarse = scores()
    for name in (
        "RHO_NODES",
        "SHARP_RHO_NODES",
        "DISTANCE_NODES",
        "RADIUS_NODES",
        "SMOOTH_RADIUS_NODES",
    ):
        monkeypatch.setattr(degeneration, name, 2 * getattr(degeneration, name))
    for once, finer in zip(coarse, scores()):
        assert abs(once - finer).max() < 1e-3
        assert abs(once.mean() - finer.mean()) < 1e-4


@pytest.mark.parametrize("k", [1, 7, 127, 511])
def test_gauss_rule_has_the_moments_of_chi_squared(k):
    nodes, weights = degeneration._chi_squared_nodes(k, 8)
    assert weights.sum() == pytest.approx(1)
    for power in range(1, 16):  # exact up to degree 2 n - 1
        moment = math.prod(k + 2 * i for i in range(power))
        assert weights @ nodes**power == pytest.approx(moment, rel=1e-8)


@pytest.mark.parametrize(
    "values, message",
    [
        ({"vocab_size": 0}, "vocab_size must be at least 1, not 0"),
        ({"latent_dim": 1}, "latent_dim must be at least 2, not 1"),
        ({"sigma": 0.0}, "sigma must lie between"),
        ({"sigma": 1e-160}, "sigma must lie between"),
        ({"sigma": 1e160}, "sigma must lie between"),
        ({"sigma": math.nan}, "sigma must lie between"),
        ({"classifier": "best"}, "classifier must be one of definition1, nearest, not 'best'"),
        ({"alpha_bar": [-0.1]}, "alpha_bar must be finite and at least 0, not -0.1"),
        ({"beta_bar": [math.inf]}, "beta_bar must be finite and .*, not inf"),
        ({"alpha_bar": [0.0], "beta_bar": [0.0]}, "alpha_bar . beta_bar must be above 0"),
    ],
)
def test_values_out_of_range_are_refused(values, message):
    given = {"alpha_bar": [0.5], "beta_bar": [0.5], "vocab_size": 9, "latent_dim": 9} | values
    with pytest.raises(ParameterError, match=message):
        degeneration_scores(**given)
