"""The embedding step, the rounding step, and what a prediction depends on."""

import pytest
import torch

from difformer_plugin.networks import denoiser as denoiser_module
from difformer_plugin.networks.layers import Memory


@pytest.fixture
def case(build):
    """A denoiser's arguments: two sentences of 6 and 4 target positions."""
    mask = torch.arange(6) < torch.tensor([[6], [4]])
    memory = Memory(torch.randn(2, 5, 16), torch.arange(5) < torch.tensor([[3], [5]]))
    z_t, previous = torch.randn(2, 2, 6, 8)
    return z_t, torch.tensor([3, 40]), mask, memory, previous


@pytest.mark.parametrize("scaled", [True, False])
def test_embed(build, scaled):
    denoiser = build(no_scale_embedding=not scaled).denoiser
    tokens = torch.tensor([[0, 9, 2, 1]])
    scale = 8**0.5 if scaled else 1
    expected = torch.stack([scale * denoiser.embed_tokens.weight[i] for i in (0, 9, 2, 1)])
    torch.testing.assert_close(denoiser.embed(tokens)[0], expected)
    assert not denoiser.embed(tokens)[0, 3].any()


def test_embed_norm_before_projection_normalises_z_0(build):
    z_0 = build(embed_norm=True, embed_norm_before_proj=True).denoiser.embed(torch.arange(4, 24))
    torch.testing.assert_close(z_0.mean(-1), torch.zeros(20), atol=1e-5, rtol=0)
    torch.testing.assert_close(z_0.var(-1, correction=0), torch.ones(20), atol=1e-3, rtol=0)


@pytest.mark.parametrize("chunk", [1, 3, 4096])
def test_round_is_the_argmax_of_the_softmax(build, monkeypatch, chunk):
    monkeypatch.setattr(denoiser_module, "ROUNDING_CHUNK", chunk)
    denoiser = build().denoiser
    z = torch.randn(7, 8)
    tokens, scores = denoiser.round(z)
    for i in range(7):
        odds = torch.exp(denoiser.output_projection.weight @ z[i])
        best = max(range(len(odds)), key=lambda v: odds[v].item())  # noqa: B023
        assert tokens[i] == best
        torch.testing.assert_close(scores[i], (odds[best] / odds.sum()).log())


@pytest.mark.parametrize(
    "options",
    [
        {"self_cond": True},
        {"self_cond": True, "self_cond_before_proj": True, "decoder_normalize_before": True},
        {"decoder_learned_pos": True, "embed_norm": True},
    ],
)
def test_padding_does_not_reach_real_positions(build, case, options):
    denoiser = build(**options).denoiser
    z_t, t, mask, memory, previous = case
    ours = denoiser(z_t, t, mask, memory, previous)
    far = torch.full_like(z_t, 1e3)
    hidden = mask[..., None]
    other = denoiser(
        torch.where(hidden, z_t, far), t, mask, memory, torch.where(hidden, previous, far)
    )
    torch.testing.assert_close(ours[mask], other[mask])


@pytest.mark.parametrize("self_cond", [False, True])
def test_a_prediction_depends_on_time_memory_and_condition(build, case, self_cond):
    denoiser = build(self_cond=self_cond).denoiser
    z_t, t, mask, memory, previous = case
    ours = denoiser(z_t, t, mask, memory, previous)

    def changed(*args):
        return not torch.allclose(denoiser(*args)[mask], ours[mask], atol=1e-5)

    assert changed(z_t, t + 1, mask, memory, previous)
    assert changed(z_t, t, mask, memory.select(torch.tensor([1, 0])), previous)
    assert changed(z_t.flip(1), t, mask, memory, previous)
    assert changed(z_t, t, mask, memory, -previous) == self_cond


def test_timesteps_are_rescaled_to_1000(build, case):
    """With T = 50, step t of the rescaled model is step 20 t of the plain one."""
    z_t, t, mask, memory, previous = case
    rescaled = build(rescale_timesteps=True).denoiser(z_t, t, mask, memory, previous)
    plain = build().denoiser(z_t, 20 * t, mask, memory, previous)
    torch.testing.assert_close(rescaled, plain)
