"""What decoding asks of models of tokens: samplers, guesses, predictions."""

import pytest
import torch
from discrete_kinds import KINDS
from tiny import SIZES
from token_cases import BOS, EOS, PAD, SOURCES, TARGETS, UNK, kinds

import difformer_plugin.families.registered  # noqa: F401  (options are checked against all of them)
from difformer_plugin.decoding.options import DecodingOptions
from difformer_plugin.decoding.sampling import build_sampler
from difformer_plugin.diffusion.categorical.draft import Draft
from difformer_plugin.diffusion.categorical.samplers.ancestral import Ancestral
from difformer_plugin.diffusion.categorical.samplers.confidence import Confidence
from difformer_plugin.diffusion.categorical.samplers.score_based import TauLeaping, Tweedie
from difformer_plugin.diffusion.insertion.sampler import Growing
from difformer_plugin.errors import UserError
from difformer_plugin.networks.layout import Layout


@pytest.mark.parametrize("name", KINDS)
def test_samplers_of_a_model(build_discrete, name):
    model = build_discrete(**KINDS[name])
    kind = {"sedd": Tweedie, "flexible": Growing}.get(KINDS[name]["objective"], Ancestral)
    own = build_sampler(model, DecodingOptions(decoding_steps=4))
    assert type(own) is kind and own.temperature == 0
    assert own.grid.tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert own.times.tolist() == own.grid.tolist()[name != "flexible" :]
    options = DecodingOptions(decoding_steps=4, decoding_timesteps="quadratic")
    grid = build_sampler(model, options).grid
    steps = model.diffusion_steps or 1000
    assert abs(grid - [0, 1 / 16, 1 / 4, 9 / 16, 1]).max() <= 0.5 / steps
    if name in ("mdlm", "mdlm continuous", "d3pm absorbing"):
        options = DecodingOptions(
            decoding_steps=4, decoding_sampler="confidence", decoding_remasking=True
        )
        own = build_sampler(model, options)
        assert type(own) is Confidence and own.remasking
    if name in ("sedd uniform", "sedd absorbing"):
        options = DecodingOptions(decoding_steps=4, decoding_sampler="tau_leaping")
        assert type(build_sampler(model, options)) is TauLeaping


@pytest.mark.parametrize(
    "name, options, said",
    [
        ("mdlm", {"decoding_sampler": "tweedie"}, "--decoding-sampler tweedie.*ancestral or conf"),
        ("d3pm uniform", {"decoding_sampler": "confidence"}, "--decoding-sampler confidence"),
        ("sedd uniform", {"decoding_sampler": "ancestral"}, "tweedie or tau_leaping"),
        ("flexible", {"decoding_sampler": "confidence"}, "use ancestral"),
        ("mdlm", {"decoding_temperature": -1.0}, "--decoding-temperature must be at least 0"),
        ("mdlm", {"decoding_temperature": float("nan")}, "--decoding-temperature"),
        ("mdlm", {"decoding_temperature": float("inf")}, "--decoding-temperature"),
        (
            "mdlm",
            {"decoding_remasking": True},
            "--decoding-remasking does nothing.*confidence",
        ),
        ("mdlm", {"decoding_sampler": "confidence", "noise_beam_size": 2}, "--noise-beam-size"),
        ("mdlm", {"decoding_steps": 9}, "--decoding-steps must lie between 1 and the model's 8"),
        ("mdlm", {"clamping": True}, "--clamping does nothing"),
        ("mdlm", {"decoding_vp_rf": True}, "--decoding-vp-rf does nothing"),
        ("mdlm", {"decoding_rescaling_factor": 2.0}, "--decoding-rescaling-factor does nothing"),
        ("mdlm", {"decoding_noise_schedule": "sqrt"}, "--decoding-noise-schedule does nothing"),
        ("flexible", {"length_beam_size": 2}, "--length-beam-size does nothing"),
        ("flexible", {"length_beam_window": True}, "--length-beam-window does nothing"),
        ("flexible", {"force_length": 5}, "--force-length does nothing"),
        ("flexible", {"force_length_ratio": 1.0}, "--force-length-ratio does nothing"),
        ("flexible", {"decoding_early_stopping": 1}, "--decoding-early-stopping does nothing"),
        ("flexible", {"retain_z_0_hat": True}, "--retain-z-0-hat does nothing"),
        ("flexible", {"race_after": 1}, "--race-after does nothing"),
    ],
)
def test_decoding_that_is_refused(build_discrete, name, options, said):
    model = build_discrete(**KINDS[name])
    with pytest.raises(UserError, match=said) as error:
        build_sampler(model, DecodingOptions(**({"decoding_steps": 4} | options)))
    assert "\n" not in str(error.value)


@kinds
def test_the_guess_that_a_prediction_stands_for(build_discrete, options):
    """The likeliest type at masks, or at all tokens; ratios without masks say nothing of x_0."""
    model = build_discrete(**options)
    mask, table = model.vocabulary.mask, model.denoiser.output_projection.weight
    tokens = torch.tensor([BOS, 5, mask, mask, UNK, EOS])
    if options["process"] != "absorbing":
        tokens[tokens == mask] = 7
    z, prediction = Draft(tokens, -torch.arange(6.0)), torch.randn(6, SIZES["latent_dim"])
    with torch.no_grad():
        guess, log_probs = model.guess(z, prediction)
        log_p = (prediction @ table[UNK:].T).log_softmax(-1)
    open_ = tokens == mask if options["process"] == "absorbing" else tokens >= UNK
    if options == KINDS["sedd uniform"]:
        open_ = torch.zeros_like(open_)
    assert guess.equal(torch.where(open_, log_p.argmax(-1) + UNK, tokens))
    torch.testing.assert_close(log_probs, torch.where(open_, log_p.amax(-1), -torch.arange(6.0)))
    assert model.round(z)[0] is z.tokens


def test_the_mask_is_the_index_after_the_last(build_discrete, task):
    model = build_discrete(embed_norm=False)
    assert model.vocabulary == (BOS, EOS, UNK, len(task.target_dictionary))
    assert len(model.denoiser.embed_tokens.weight) == len(task.target_dictionary)
    embedded = model.denoiser.embed(torch.tensor([4, model.vocabulary.mask]))
    scale = SIZES["latent_dim"] ** 0.5
    torch.testing.assert_close(embedded[0], scale * model.denoiser.embed_tokens.weight[4])
    torch.testing.assert_close(embedded[1], scale * model.denoiser.embed_mask.weight[0])
    assert build_discrete(process="uniform", objective="d3pm").denoiser.embed_mask is None
    flexible = build_discrete(objective="flexible")
    assert flexible.length_predictor is None and not flexible.predicts_length


@kinds
def test_predictions_in_another_precision_are_near(build_discrete, sentences, options):
    model = build_discrete(**options)
    target = sentences(TARGETS, "target")
    layout = Layout.packed(target != PAD)
    z = Draft(target[target != PAD], torch.zeros(layout.candidates.total))
    with torch.no_grad():
        memory = model.encoder(sentences(SOURCES))
        exact, half = (
            model.predict(z, 0.5, layout, model.conditions(memory, dtype), None)
            for dtype in (None, torch.bfloat16)
        )
    assert exact.dtype == half.dtype == torch.float32
    assert 0 < (exact - half).norm() < 0.05 * exact.norm()
