"""Classifier-free guidance: none at w = 0, none where the source says nothing, else the formula."""

import pytest
import torch
from discrete_kinds import KINDS

from difformer_plugin.decoding import engine, oracle
from difformer_plugin.decoding.combination import Combination
from difformer_plugin.decoding.generator import DiffusionGenerator
from difformer_plugin.decoding.options import DecodingOptions
from difformer_plugin.diffusion.noise import sentence_keys
from difformer_plugin.errors import UserError
from difformer_plugin.networks.layers import Memory
from difformer_plugin.networks.layout import Layout

FAMILIES = ["embeddings", "mdlm", "sedd uniform", "flexible"]


@pytest.fixture(params=FAMILIES)
def model(request, build, build_discrete):
    """A model that knows absent sources; its state for them is drawn at random."""
    if request.param == "embeddings":
        model = build(source_dropout=0.3, self_cond=True)
    else:
        model = build_discrete(**KINDS[request.param], source_dropout=0.3)
    with torch.no_grad():
        model.no_source.normal_()
    return model.eval()


@pytest.fixture
def batch(sentences):
    return sentences([4, 7, 2])


@torch.no_grad()
def translate(decode, model, src_tokens, scale):
    options = DecodingOptions(decoding_steps=4, guidance_scale=scale)
    lengths = torch.tensor([[6], [8], [4]]) if model.predicts_length else torch.full((3, 1), 2)
    keys = sentence_keys(src_tokens, 1, 3)
    drawn = decode(model, options, model.encoder(src_tokens), lengths, keys)
    return [(c.tokens.tolist(), c.log_probs) for c in drawn]


def same(ours, expected):
    for (tokens, scores), (other_tokens, other_scores) in zip(ours, expected, strict=True):
        assert tokens == other_tokens
        torch.testing.assert_close(scores, other_scores, atol=1e-4, rtol=1e-4)


def test_the_engine_guides_as_the_oracle_does(model, batch):
    guided = translate(engine.decode, model, batch, 1.5)
    same(guided, translate(oracle.decode, model, batch, 1.5))
    plain = translate(engine.decode, model, batch, 0.0)
    assert any(not torch.equal(a, b) for (_, a), (_, b) in zip(guided, plain) if len(a) == len(b))


def test_a_source_that_says_nothing_guides_nowhere(model, batch, monkeypatch):
    """Where both predictions are equal, any w gives what w = 0 does."""
    plain = translate(engine.decode, model, batch, 0.0)
    monkeypatch.setattr(type(model), "without_source", lambda self, memory: memory)
    same(translate(engine.decode, model, batch, 2.0), plain)


def test_weight_0_asks_once_and_changes_no_bit(model, batch):
    memory = Memory(torch.randn(1, 3, 16), torch.ones(1, 3).bool())
    combination = Combination(DecodingOptions())
    assert combination.memories(model, memory) == [memory]
    prediction = torch.randn(5, 8)
    assert combination.combine([prediction]) is prediction


@torch.no_grad()
@pytest.mark.parametrize("scale", [0.5, 3.0])
def test_probabilities_of_tokens_are_guided(build_discrete, batch, scale):
    """p ~ p(. | x)^(1 + w) p(. | no source)^-w, normalised, token by token."""
    model = build_discrete(objective="mdlm", source_dropout=0.1)
    model.no_source.normal_()
    memory = model.encoder(batch)
    layout = Layout([6, 8, 4], [0, 1, 2], torch.device("cpu"))
    z = model.blank(18, "cpu")[0]
    z.tokens.fill_(model.vocabulary.mask)
    combination = Combination(DecodingOptions(guidance_scale=scale))
    predictions = [
        model.predict(z, 0.7, layout, model.conditions(m), None)
        for m in combination.memories(model, memory)
    ]
    with_source, without = (model.logits(p).softmax(-1).double() for p in predictions)
    expected = with_source ** (1 + scale) / without**scale
    ours = model.logits(combination.combine(predictions)).softmax(-1).double()
    torch.testing.assert_close(
        ours, expected / expected.sum(-1, keepdim=True), rtol=1e-3, atol=1e-6
    )


def test_training_without_some_sources(build, sentences):
    """As many sentences as the probability says read the learned state, and it is trained."""
    model = build(source_dropout=0.4).train()
    memory = Memory(torch.randn(4000, 2, 16), torch.ones(4000, 2).bool())
    absent = (model.drop_sources(memory).states == model.no_source).all(-1)
    assert absent[:, 0].equal(absent[:, 1])
    assert absent[:, 0].float().mean() == pytest.approx(0.4, abs=0.03)
    assert model.eval().drop_sources(memory) is memory
    output = model.train()(sentences([4] * 20), sentences([5] * 20, "target"))
    output.z_0_hat.sum().backward()
    assert model.no_source.grad.abs().sum() > 0


def test_a_model_without_source_dropout_has_no_such_weight(build, task):
    model = build()
    assert "no_source" not in model.state_dict()
    options = DecodingOptions(guidance_scale=0.5)
    generator = DiffusionGenerator(task.target_dictionary, options, 1)
    with pytest.raises(UserError, match="--guidance-scale needs .* --source-dropout"):
        generator.check_models([model])
    options = DecodingOptions(guidance_scale=-1.0)
    with pytest.raises(UserError, match="--guidance-scale must be at least 0, not -1"):
        DiffusionGenerator(task.target_dictionary, options, 1).check_models([model])
