"""The degenerated model taken literally, and the score of real tables by sampling."""

import math

import pytest
import torch

from difformer_plugin.diffusion.gaussian import sampled_degeneration
from difformer_plugin.diffusion.gaussian.degeneration import degeneration_scores
from difformer_plugin.diffusion.gaussian.sampled_degeneration import (
    degenerated_model,
    error_bound,
    normal_scores,
    seeded,
    standard_error,
    table_scores,
)


def definition_1(embeddings, z):
    """argmin over y of the mean squared distance to e_y minus log p(y | z), as it is written."""
    log_p = (embeddings @ z).log_softmax(0)
    losses = [(z - e).square().mean() - log_p[y] for y, e in enumerate(embeddings)]
    return int(torch.stack(losses).argmin())


def test_definition_1_is_taken_literally():
    embeddings = torch.randn(30, 6, dtype=torch.float64)
    z = torch.randn(200, 6, dtype=torch.float64)
    found = degenerated_model(embeddings, z)
    assert found.tolist() == [definition_1(embeddings, row) for row in z]
    nearest = torch.cdist(z, embeddings).argmin(1)
    assert torch.equal(degenerated_model(embeddings, z, "nearest"), nearest)
    assert not torch.equal(found, nearest)


def test_blocks_do_not_matter(monkeypatch):
    embeddings, z = torch.randn(30, 6), torch.randn(200, 6)
    whole = degenerated_model(embeddings, z)
    for block in (1, 70, 30 * 7):
        monkeypatch.setattr(sampled_degeneration, "MAX_ENTRIES", block)
        assert torch.equal(degenerated_model(embeddings, z), whole)


def test_two_opposite_embeddings_have_a_closed_form():
    """Of u and -u the right one is chosen where a |u|^2 + b u.noise > 0: Phi(a |u| / b)."""
    u = torch.tensor([0.6, -1.1, 0.3])
    a, b = torch.tensor([0.9, 0.5, 0.1]), torch.tensor([0.5, 2.0, 1.0])
    expected = torch.special.ndtr(a.sqrt() * u.norm() / b.sqrt()).double()
    for classifier in ("definition1", "nearest"):
        found = table_scores(torch.stack([u, -u]), a, b, 40_000, seeded("cpu", 0), classifier)
        torch.testing.assert_close(found, expected, atol=4 * 0.5 / 200, rtol=0)


def test_draws_depend_on_the_seed_alone():
    embeddings = torch.randn(40, 8)
    a, b = [0.9, 0.5], [0.4, 2.0]
    once, again, other = (
        table_scores(embeddings, a, b, 100, seeded("cpu", seed)) for seed in (3, 3, 4)
    )
    assert torch.equal(once, again) and not torch.equal(once, other)
    state = torch.random.get_rng_state()
    table_scores(embeddings, a, b, 100, seeded("cpu", 3))
    assert torch.equal(state, torch.random.get_rng_state())


def test_more_noise_never_makes_the_same_draws_easier_by_chance():
    """Scores of a series of factors fall evenly, as a search by bisection wants them to."""
    embeddings = torch.randn(100, 16)
    scores = [
        table_scores(embeddings, [0.5], [f**2 * 0.5], 2000, seeded("cpu", 0)).item()
        for f in torch.linspace(1, 3, 20).tolist()
    ]
    assert scores == sorted(scores, reverse=True) and scores[0] > scores[-1] + 0.2


def test_standard_error_is_the_spread_of_repetitions():
    embeddings = torch.randn(50, 8)
    a, b, samples = [0.95, 0.7, 0.3, 0.01], [0.05, 0.3, 0.7, 0.99], 60
    runs = [table_scores(embeddings, a, b, samples, seeded("cpu", i)) for i in range(300)]
    spread = torch.stack([run.mean() for run in runs]).std().item()
    stated = sum(standard_error(run, samples) for run in runs) / len(runs)
    assert stated == pytest.approx(spread, rel=0.2)


def test_certain_scores_still_have_an_error():
    assert standard_error(torch.ones(3, dtype=torch.float64), 10) > 0.01


def test_error_bound_is_hoeffdings():
    bound = error_bound(2000, 0.9)
    assert 2 * math.exp(-2 * 2000 * bound**2) == pytest.approx(0.1)
    draws = torch.rand(500, 2000).lt(0.5).double().mean(1)  # the widest that draws can be
    assert (draws - 0.5).abs().gt(bound).double().mean() < 0.1


def test_tables_and_noise_are_independent():
    """Of one table only, too: were they drawn from the same numbers, it would show."""
    exact = degeneration_scores([0.5], [8.0], 300, 32)
    drawn = [normal_scores([0.5], [8.0], 300, 32, samples=64, tables=1, seed=i) for i in range(60)]
    means = torch.stack([scores.mean() for scores, _ in drawn])
    assert abs(means.mean() - exact[0]) < 3 * means.std() / math.sqrt(60)


def test_scale_of_normal_tables():
    """Twice sigma is half the noise, but for the classifier, which a scale does not change."""
    setting = {"vocab_size": 300, "latent_dim": 16, "samples": 2000, "classifier": "nearest"}
    wide, _ = normal_scores([0.5], [4.0], sigma=2.0, **setting)
    usual, _ = normal_scores([0.5], [1.0], sigma=1.0, **setting)
    torch.testing.assert_close(wide, usual, atol=0.002, rtol=0)


def test_progress_is_shown_a_step_at_a_time():
    seen = []

    def progress(steps):
        for step in steps:
            seen.append(step)
            yield step

    table_scores(torch.randn(10, 4), [0.5, 0.2], [0.5, 0.8], 5, seeded("cpu", 0), progress=progress)
    assert seen == [(0.5, 0.5), (0.2, 0.8)]
