"""What a Difformer's network predicts: z_0, the noise, the posterior mean, or probabilities."""

import pytest
import torch

from difformer_plugin.decoding.generator import DiffusionGenerator
from difformer_plugin.decoding.options import DecodingOptions
from difformer_plugin.decoding.speedups import ENGINE, PLAIN
from difformer_plugin.errors import UserError
from difformer_plugin.families.embeddings.objective import DifformerLoss, DifformerLossConfig


@pytest.fixture
def step(build, sentences):
    """A step in evaluation mode: the model, its output, z_t (N, D), and what the network says."""

    def step(**options):
        model, seen = build(**options), []
        own = model.denoiser.denoise

        def denoise(z_t, *rest):
            seen.append((z_t, own(z_t, *rest)))
            return seen[-1][1]

        model.denoiser.denoise = denoise
        with torch.no_grad():
            output = model(sentences([5, 9, 4, 7]), sentences([6, 8, 5, 9], "target"))
        return model, output, *seen[-1]

    return step


def alphas(model, output):
    """alpha-bar of each token's step and of the step before it, float64 (N, 1)."""
    series = torch.from_numpy(model.process.alphas_cumprod)
    before = torch.cat([torch.ones(1, dtype=torch.float64), series[:-1]])
    return (x[output.t][output.rows][:, None] for x in (series, before))


def terms(model, output, task, **options):
    loss = DifformerLoss(DifformerLossConfig(**options), task)
    weights = loss.squared_error_weights(model, output)
    return loss.terms(model.denoiser.output_projection, output, weights=weights)


def test_predicted_noise_gives_back_z_t(step, task):
    model, output, z_t, noise = step(prediction="epsilon")
    alpha, _ = alphas(model, output)
    found = alpha.sqrt() * output.z_0_hat + (1 - alpha).sqrt() * noise  # F = 1
    torch.testing.assert_close(found.float(), z_t, rtol=1e-3, atol=1e-3)
    true = (z_t - alpha.sqrt() * output.z_0) / (1 - alpha).sqrt()
    mse = (noise - true).square().mean().item()
    assert terms(model, output, task)["mse"].item() == pytest.approx(mse, rel=1e-3)


def test_a_predicted_mean_is_that_of_the_posterior_given_z_0_hat(step):
    model, output, z_t, mean = step(prediction="mean")
    alpha, before = alphas(model, output)
    # Eq. 7 of Ho et al. (2020)
    beta = 1 - alpha / before
    of_z_0 = before.sqrt() * beta / (1 - alpha)
    of_z_t = (alpha / before).sqrt() * (1 - before) / (1 - alpha)
    found = of_z_0 * output.z_0_hat + of_z_t * z_t
    torch.testing.assert_close(found.float(), mean, rtol=1e-3, atol=1e-3)


def test_expected_embeddings_and_their_anchor_loss_are_of_one_distribution(step, task):
    model, output, _, latents = step(prediction="expected_embedding", self_cond=True)
    logits = model.denoiser.output_projection(latents)
    table = model.denoiser.embed(torch.arange(logits.shape[1]))
    torch.testing.assert_close(output.z_0_hat, logits.softmax(-1) @ table, rtol=1e-4, atol=1e-5)
    nll = torch.nn.functional.cross_entropy(logits, output.tokens).item()
    assert terms(model, output, task)["anchor_nll"].item() == pytest.approx(nll, rel=1e-5)


@pytest.mark.parametrize("speedups", [ENGINE, PLAIN], ids=["engine", "oracle"])
def test_expected_embeddings_are_decoded_by_the_networks_own_logits(
    build, task, sentences, speedups
):
    """As they are trained: the likeliest tokens of the last output, with their probabilities."""
    model, outputs = build(prediction="expected_embedding", self_cond=True), []
    own = model.denoiser.denoise
    model.denoiser.denoise = lambda *args: outputs.append(own(*args)) or outputs[-1]
    options = DecodingOptions(decoding_steps=3)
    generator = DiffusionGenerator(task.target_dictionary, options, 1, speedups=speedups)
    ((found,),) = generator.generate([model], {"net_input": {"src_tokens": sentences([7])}})
    log_probs, tokens = model.denoiser.output_projection(outputs[-1]).log_softmax(-1).max(-1)
    assert found["tokens"].tolist() == tokens.tolist()
    torch.testing.assert_close(found["positional_scores"], log_probs, rtol=1e-4, atol=1e-4)
    # which is not what their mean is rounded to
    mean = model.denoiser.round(model.denoiser.expected(outputs[-1]))[1]
    assert (mean - log_probs).abs().min() > 1e-3


def test_the_likelihood_under_expected_embeddings_is_that_of_training(step):
    model, output, z_t, latents = step(prediction="expected_embedding")
    prediction = model.decoded(latents, output.z_0_hat)
    found = model.log_probs(output.tokens, z_t, prediction)
    nll = torch.nn.functional.cross_entropy(
        model.denoiser.output_projection(latents), output.tokens, reduction="none"
    )
    torch.testing.assert_close(found, -nll, rtol=1e-4, atol=1e-5)


def test_the_weighted_loss_is_the_bounds_term(step, task):
    model, output, _, _ = step()
    alpha, before = alphas(model, output)
    # the divergence of two normal laws with the variance of the posterior, xi^2 d^2 / 2 beta-tilde
    beta = 1 - alpha / before
    xi, variance = before.sqrt() * beta / (1 - alpha), beta * (1 - before) / (1 - alpha)
    assert (output.t > 0).all()  # else the variance is 0
    errors = (output.z_0_hat - output.z_0).square() * xi.square() / (2 * variance)
    found = terms(model, output, task, weighted_loss=True)["mse"].item()
    assert found == pytest.approx(errors.mean().item(), rel=1e-4)
    assert terms(model, output, task)["mse"].item() != pytest.approx(found, rel=0.1)


@pytest.mark.parametrize(
    "options", [{"normalize_input": True}, {"noise_schedule": "positional"}], ids=str
)
def test_what_z_0_cannot_be_computed_from_is_refused(build, options):
    for prediction in ("epsilon", "mean"):
        with pytest.raises(UserError, match=f"--prediction {prediction}"):
            build(prediction=prediction, **options)
    build(prediction="expected_embedding", **options)
