"""Deciding the most confident tokens of latents first."""

import math

import pytest
import torch

from difformer_plugin.diffusion.gaussian.partly_clean import PartlyClean
from difformer_plugin.diffusion.gaussian.process import GaussianProcess
from difformer_plugin.diffusion.gaussian.samplers.ancestral import Ancestral
from difformer_plugin.diffusion.gaussian.samplers.confidence import Confidence
from difformer_plugin.networks.layout import Layout

STEPS = 5
TABLE = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]])


def nearest(z_0_hat):
    log_probs, tokens = (z_0_hat @ TABLE.T).log_softmax(-1).max(-1)
    return tokens, TABLE[tokens], log_probs


@pytest.fixture
def process():
    return GaussianProcess.create("sqrt", 100, 2.0).spaced(STEPS)


@pytest.fixture(params=[True, False], ids=["packed", "padded"])
def layout(request):
    mask = torch.arange(7) < torch.tensor([[7], [3], [5]])
    return Layout.packed(mask) if request.param else Layout.dense(mask)


@pytest.mark.parametrize("fresh", [False, True])
def test_a_step_by_hand(process, layout, fresh):
    sampler, ancestral = Confidence(process, nearest, fresh_noise=fresh), Ancestral(process)
    noise = torch.randn(STEPS + 1, len(layout.rows), 2)
    real = torch.ones(len(layout.rows), dtype=torch.bool) if layout.real is None else layout.real
    z = sampler.prior(lambda: noise[STEPS], layout)
    assert torch.equal(z.z, 2 * noise[STEPS]) and not z.clean.any()
    scores = z.log_probs.tolist()
    for k in reversed(range(STEPS)):
        prediction = 3 * torch.randn(len(layout.rows), 2)
        new = sampler.step(z, prediction, k, lambda k=k: noise[k], layout)
        types, own, found = nearest(prediction)
        noisy = 2 * noise[k] if fresh else ancestral.step(z.z, prediction, k, lambda k=k: noise[k])
        if k and not fresh:  # what was decided is corrupted again, by Eq. 3
            kept = process.alpha_bar(k - 1, None)
            again = math.sqrt(kept) * z.z + 2 * math.sqrt(1 - kept) * noise[k]
            noisy = torch.where(z.clean[:, None], again, noisy)
        scores = [s if c else f for s, c, f in zip(scores, z.clean.tolist(), found.tolist())]
        for row in range(3):
            tokens = ((layout.rows == row) & real).nonzero()[:, 0].tolist()
            count = math.floor(len(tokens) * k / STEPS)
            worst = sorted(tokens, key=lambda i: scores[i])[:count]
            for i in tokens:
                assert new.clean[i] == (i not in worst)
                decided = z.z[i] if z.clean[i] else own[i]
                torch.testing.assert_close(new.z[i], noisy[i] if i in worst else decided)
                assert new.tokens[i] == (z.tokens[i] if z.clean[i] else types[i])
        z = new
    assert z.clean[real].all()


def test_the_end_is_what_was_decided_and_the_last_prediction_elsewhere(process):
    clean, tokens = torch.tensor([True, False, True, False]), torch.tensor([2, 0, 1, 0])
    z = PartlyClean(torch.randn(4, 2), clean, torch.zeros(4), tokens)
    prediction = torch.randn(4, 2)
    end = Confidence(process, nearest).finish(z, prediction, 2, None)
    assert torch.equal(end.z, torch.stack([z.z[0], prediction[1], z.z[2], prediction[3]]))
    assert torch.equal(end.clean, z.clean) and torch.equal(end.tokens, z.tokens)


def test_a_state_is_overwritten_by_another_and_by_latents():
    state = PartlyClean.noisy(torch.zeros(3, 2))
    clean, tokens = torch.tensor([True, False, True]), torch.tensor([2, 0, 1])
    other = PartlyClean(torch.ones(3, 2), clean, torch.rand(3), tokens)
    state.copy_(other)
    assert torch.equal(state.z, other.z) and torch.equal(state.clean, other.clean)
    assert torch.equal(state.log_probs, other.log_probs)
    assert torch.equal(state.tokens, tokens)
    assert torch.equal(state[state.clean].tokens, torch.tensor([2, 1]))
    state.copy_(torch.full((3, 2), 5.0))
    assert (state.z == 5).all() and not state.clean.any()
