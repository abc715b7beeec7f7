"""What decoding asks of a Difformer."""

import copy

import pytest
import torch

from difformer_plugin.decoding.generator import DiffusionGenerator
from difformer_plugin.decoding.options import DecodingOptions
from difformer_plugin.decoding.sampling import build_sampler
from difformer_plugin.decoding.speedups import PLAIN
from difformer_plugin.diffusion.gaussian.samplers.ancestral import Ancestral
from difformer_plugin.diffusion.schedules import alpha_bar_series
from difformer_plugin.errors import UserError
from difformer_plugin.networks import denoiser
from difformer_plugin.networks.layers import Memory
from difformer_plugin.networks.layout import Layout

CLAMPING = DecodingOptions(clamping=True)
TIME = 7 / 50  # the seventh of T = 50 steps


def test_predict_starts_without_a_condition(build):
    model = build(self_cond=True)
    memory = Memory(torch.randn(2, 5, 16), torch.ones(2, 5).bool())
    z_t, mask = torch.randn(2, 4, 8), torch.ones(2, 4).bool()
    layout, conditions = Layout.dense(mask), model.conditions(memory)
    for previous in (None, torch.randn(2, 4, 8)):
        condition = torch.zeros(2, 4, 8) if previous is None else previous
        expected = model.denoiser(z_t, torch.tensor([7, 7]), mask, memory, condition)
        last = None if previous is None else previous.flatten(0, 1)
        predicted = model.predict(z_t.flatten(0, 1), TIME, layout, conditions, last)
        torch.testing.assert_close(predicted.view(2, 4, 8), expected)


def test_half_precision_predicts_in_float32(build):
    model = build(self_cond=True).bfloat16()
    memory = Memory(torch.randn(2, 5, 16).bfloat16(), torch.ones(2, 5).bool())
    layout = Layout.dense(torch.ones(2, 4).bool())
    predicted = model.predict(torch.randn(8, 8), TIME, layout, model.conditions(memory), None)
    assert predicted.dtype == torch.float32
    assert model.refine(predicted, CLAMPING, 0).dtype == torch.float32
    assert model.round(predicted)[1].dtype == torch.float32


def test_decoding_in_another_precision(build):
    """It gives what the whole model gives in this precision, and follows the weights."""
    model = build(self_cond=True).eval()
    memory = Memory(torch.randn(2, 5, 16), torch.ones(2, 5).bool())
    layout, z_t = Layout.dense(torch.ones(2, 4).bool()), torch.randn(8, 8)

    def predict(dtype=torch.bfloat16):
        return model.predict(z_t, TIME, layout, model.conditions(memory, dtype), None)

    half = copy.deepcopy(model).bfloat16()
    expected = half.predict(z_t, TIME, layout, half.conditions(memory.to(torch.bfloat16)), None)
    assert torch.equal(predict(), expected) and not torch.equal(predict(None), expected)
    with torch.no_grad():
        model.train().denoiser.project_in_dim.weight.data.mul_(3)
    assert not torch.equal(model.eval() and predict(), expected)
    model.load_state_dict(half.float().state_dict())
    torch.testing.assert_close(predict(), expected)


def test_decoding_in_int8(build):
    """Linear layers are rounded, and nothing else: predictions are near those of float32."""
    model = build(self_cond=True).eval()
    memory = Memory(torch.randn(2, 5, 16), torch.ones(2, 5).bool())
    layout, z_t = Layout.dense(torch.ones(2, 4).bool()), torch.randn(8, 8)

    def predict(dtype):
        conditions = model.conditions(memory, dtype).select(torch.tensor([0, 1])).clone()
        return model.predict(z_t, TIME, layout, conditions, None)

    exact, rounded = predict(None), predict(torch.qint8)
    error = (rounded - exact).norm() / exact.norm()
    assert rounded.dtype == torch.float32 and 0 < error < 0.1
    assert model.denoiser_in(torch.qint8).output_projection.weight.equal(
        model.denoiser.output_projection.weight
    )


def test_clamp_embeds_the_likeliest_tokens(build):
    """With tied embeddings of equal length, clamping an embedding gives it back."""
    model = build(
        share_decoder_input_output_embed=True, embed_norm=True, embed_norm_before_proj=True
    )
    with torch.no_grad():
        model.denoiser.embed_tokens.weight[4:] = model.denoiser.embed(torch.arange(4, 24))
    tokens = torch.tensor([[4, 9, 23], [7, 7, 11]])
    z_0 = model.denoiser.embed(tokens.flatten())
    z_0_hat = z_0 + 0.01 * torch.randn(6, 8)
    clamped = model.refine(z_0_hat, CLAMPING, 0)
    torch.testing.assert_close(clamped[:, :8], z_0)
    assert torch.equal(clamped[:, 8:], z_0_hat)


@pytest.mark.parametrize("chunk", [2, 100])
def test_soft_clamping_is_the_mean_of_all_embeddings(build, monkeypatch, chunk):
    """By a loop over tokens and types; in the first calls alone."""
    monkeypatch.setattr(denoiser, "ROUNDING_CHUNK", chunk)
    model = build(embed_norm=True, embed_norm_before_proj=True)
    z_0_hat, own = torch.randn(5, 8), model.denoiser
    embeddings = own.embed(torch.arange(len(own.embed_tokens.weight)))
    probabilities = [
        own.log_probs(torch.full((5,), y), z_0_hat).exp() for y in range(len(embeddings))
    ]
    expected = sum(p[:, None] * e for p, e in zip(probabilities, embeddings))
    options = DecodingOptions(soft_clamping=2)
    for calls in (0, 1):
        torch.testing.assert_close(model.refine(z_0_hat, options, calls)[:, :8], expected)
    assert model.refine(z_0_hat, options, 2) is z_0_hat


@pytest.mark.parametrize("options", [{"clamping": True}, {"soft_clamping": 9}], ids=str)
@pytest.mark.parametrize("sampler", ["ancestral", "confidence"])
def test_clamping_does_not_change_how_likely_tokens_are(
    build, task, sentences, monkeypatch, options, sampler
):
    """Their scores are those of predictions before they are clamped, at each place one's."""
    model, seen = build(self_cond=True, clean_tokens=0.5), []
    own = model.predict

    def predict(*arguments):
        seen.append(own(*arguments))
        return seen[-1]

    monkeypatch.setattr(model, "predict", predict)
    options = DecodingOptions(decoding_steps=3, decoding_sampler=sampler, **options)
    generator = DiffusionGenerator(task.target_dictionary, options, 1, speedups=PLAIN)
    ((candidate,),) = generator.generate([model], {"net_input": {"src_tokens": sentences([5])}})
    rounded = [model.denoiser.round(prediction) for prediction in seen]
    if sampler == "ancestral":
        rounded = rounded[-1:]
        assert torch.equal(rounded[0][0], candidate["tokens"])
    log_probs = torch.stack([own for _, own in rounded])
    assert ((log_probs - candidate["positional_scores"]).abs() < 1e-4).any(0).all()


@pytest.mark.parametrize("equal", [False, True], ids=["scaled", "equal"])
@pytest.mark.parametrize("prediction", ["z_0", "expected_embedding"])
def test_decided_tokens_are_those_that_were_decided(
    build, task, sentences, monkeypatch, prediction, equal
):
    """Each is the likeliest in the prediction whose log-probability it has, at its place."""
    model, seen = build(self_cond=True, clean_tokens=0.5, prediction=prediction), []
    with torch.no_grad():  # so that many embeddings have a larger product with another type's
        model.denoiser.embed_tokens.weight *= 1 + torch.arange(24)[:, None] % 7
        if equal:  # a type is not known from its embedding
            model.denoiser.embed_tokens.weight[:] = model.denoiser.embed_tokens.weight[5].clone()
    own = model.predict

    def predict(*arguments):
        seen.append(own(*arguments))
        return seen[-1]

    monkeypatch.setattr(model, "predict", predict)
    options = DecodingOptions(decoding_steps=4, decoding_sampler="confidence")
    generator = DiffusionGenerator(task.target_dictionary, options, 1, speedups=PLAIN)
    ((candidate,),) = generator.generate([model], {"net_input": {"src_tokens": sentences([9])}})
    tokens, log_probs = (torch.stack(x) for x in zip(*map(model.round, seen)))
    call = (log_probs - candidate["positional_scores"]).abs().argmin(0)
    assert torch.equal(tokens.gather(0, call[None])[0], candidate["tokens"])


def test_without_clamping_predictions_stay_as_they_are(build):
    z_0_hat = torch.randn(6, 8)
    assert build().refine(z_0_hat, DecodingOptions(), 0) is z_0_hat


def test_the_sampler_has_the_process_of_training_but_for_the_factor(build):
    model = build(noise_schedule="linear", rescaling_factor=4.0)
    sampler = build_sampler(model, DecodingOptions(decoding_steps=5))
    own = sampler.process
    assert type(sampler) is Ancestral
    assert sampler.times.tolist() == [step / 50 for step in (0, 12, 24, 37, 49)]
    assert own.noise_scale == 1 and model.process.noise_scale == 4
    assert own.timesteps.tolist() == [0, 12, 24, 37, 49]
    assert (own.alphas_cumprod == alpha_bar_series("linear", 50)[own.timesteps]).all()
    other = build_sampler(
        model,
        DecodingOptions(
            decoding_steps=50,
            decoding_noise_schedule="cosine",
            decoding_rescaling_factor=3.0,
            decoding_vp_rf=True,
        ),
    )
    assert other.process.alphas_cumprod == pytest.approx(alpha_bar_series("cosine", 50, 3.0))
    with pytest.raises(UserError, match="--decoding-steps.*50"):
        build_sampler(model, DecodingOptions(decoding_steps=51))


def test_sizes_that_decoding_reads(build):
    model = build()
    assert (model.time_unit, model.noise_dim) == (50, 8)
    assert model.max_positions() == (40, 30)
