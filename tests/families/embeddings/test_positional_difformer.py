"""Difformer with noise that depends on the position: training, decoding and its options."""

import pytest
import torch

from difformer_plugin.decoding.options import DecodingOptions
from difformer_plugin.diffusion.gaussian.process import GaussianProcess, PositionalProcess
from difformer_plugin.diffusion.gaussian.rescaling import NoiseSeries, dgs, search_factor
from difformer_plugin.errors import UserError
from difformer_plugin.families.embeddings.corruption import corrupt, corrupt_for_validation
from difformer_plugin.networks.layout import Layout
from difformer_plugin.reranking.likelihood import own_likelihoods

POSITIONAL = {"noise_schedule": "positional", "rescaling_factor": 3.0}
LENGTHS = [5, 2, 9]


# decoding


def test_another_model_may_be_decoded_by_position(build):
    model = build()
    options = DecodingOptions(decoding_noise_schedule="positional", decoding_steps=5)
    sampler = model.build_sampler(model.samplers()["ddim"], options, {"eta": 0.0})
    assert isinstance(sampler.process, PositionalProcess) and len(sampler.process) == 5
    assert sampler.process.noise_scale == 1


# training


def test_noise_of_validation_belongs_to_the_sentence(build, sentences):
    """Whatever it is padded to."""
    process, keys = build(**POSITIONAL).process, torch.tensor([11, 12, 13])
    mask = torch.arange(9) < torch.tensor(LENGTHS)[:, None]
    z_0 = torch.randn(3, 9, 8)
    together = corrupt_for_validation(process, z_0, mask, keys)
    for i, n in enumerate(LENGTHS):
        row = slice(i, i + 1)
        alone = corrupt_for_validation(process, z_0[row, :n], mask[row, :n], keys[row])
        torch.testing.assert_close(alone.z_t, together.z_t[row, :n])


@pytest.mark.parametrize("ahead", [0.0, 0.4])
def test_training_corrupts_each_token_by_its_position(build, ahead):
    """z_t of zeros has the deviation of the token's place, and so has the state ahead."""
    model = build(**POSITIONAL, self_cond=True, self_cond_ahead=ahead, clean_tokens=0.3)
    mask = torch.tensor(LENGTHS).repeat(4000)[:, None] > torch.arange(9)
    z_0 = torch.zeros(len(mask), 9, 8)
    drawn = corrupt(model.cfg, model.process, z_0, mask, torch.Generator().manual_seed(2))
    layout = Layout.dense(mask)
    for z, t in [(drawn.z_t, drawn.t)] + ([drawn.earlier] if ahead else []):
        alpha_bar = model.process.alpha_bar(t, layout).view(*mask.shape, 1)
        unit = z / (3 * (1 - alpha_bar).sqrt())
        noisy = mask & ~drawn.clean
        assert (z[drawn.clean] == 0).all()
        for i, n in enumerate(LENGTHS):
            for k in (0, n - 1):
                own = unit[i::3, k][noisy[i::3, k]]
                assert abs(own.square().mean().item() - 1) < 0.06
    if ahead:
        assert (drawn.earlier[1] >= drawn.t).all() and (drawn.earlier[1] > drawn.t).any()


def test_a_step_of_training_has_finite_gradients(build, sentences):
    model = build(**POSITIONAL, self_cond=True, self_cond_ahead=0.2, clean_tokens=0.3).train()
    output = model(src_tokens=sentences(LENGTHS), target=sentences([4, 6, 2], "target"))
    (output.z_0_hat - output.z_0).square().mean().backward()
    gradients = [p.grad for p in model.denoiser.parameters() if p.grad is not None]
    assert gradients and all(g.isfinite().all() for g in gradients)


@torch.no_grad()
def test_likelihood_of_a_candidate_does_not_depend_on_the_others(build, sentences):
    model, source = build(**POSITIONAL), sentences([5, 5])
    memory, keys = model.encoder(source), torch.tensor([5, 6])
    targets = [[[0, 7, 8, 2], [0, 9, 2]], [[0, 7, 8, 9, 10, 2]]]
    together = own_likelihoods(model, memory, keys, targets)
    alone = [
        own_likelihoods(model, memory.select(torch.tensor([s])), keys[s : s + 1], [[target]])[0]
        for s, own in enumerate(targets)
        for target in own
    ]
    assert together == pytest.approx(alone, abs=1e-5)


# the rescaling factor


def test_the_factor_is_searched_for_by_position(build, task, monkeypatch):
    """DGS is the mean over steps and positions; training finds the least factor."""
    monkeypatch.setattr("difformer_plugin.diffusion.gaussian.rescaling.TYPICAL_LENGTH", 2)
    options = {"noise_schedule": "positional", "diffusion_steps": 6, "max_dgs": 0.15}
    model = build(**options, rescaling_factor="auto")
    series = NoiseSeries("positional", 6)
    expected, _ = search_factor(
        lambda f: dgs(series, f, len(task.target_dictionary), model.cfg.latent_dim), 0.15
    )
    assert model.rescaling.factor == expected > 1
    table = torch.randn(len(task.target_dictionary), model.cfg.latent_dim)
    assert 0 < model.rescaling.score(table) < 1


@pytest.mark.parametrize("vp_rf", [False, True])
def test_coefficients_of_the_score_are_those_of_the_process(vp_rf):
    series = NoiseSeries("positional", 60, vp_rf, stride=7, target_length=4)
    process = GaussianProcess.create("positional", 60, 2.5, vp_rf)
    alpha_bar, beta_bar = series.coefficients(2.5)
    layout = Layout([4], [0], torch.device("cpu"))
    ours = torch.cat([process.alpha_bar(int(k), layout)[:, 0] for k in range(0, 60, 7)])
    assert alpha_bar == pytest.approx(ours.numpy(), rel=1e-9)
    assert beta_bar == pytest.approx(process.noise_scale**2 * (1 - ours.numpy()), rel=1e-9)
    assert series.by_time(alpha_bar) == pytest.approx(ours.view(-1, 4).mean(1).numpy())


# what does not go together


def test_a_deviation_that_tokens_share_is_refused(build):
    with pytest.raises(UserError, match="--noise-schedule positional .* --normalize-input"):
        build(**POSITIONAL, normalize_input=True)
    with pytest.raises(UserError, match="depends on the position"):
        build(**POSITIONAL).scalar_process  # noqa: B018
