"""Lengths that are found by generating padding: what is padded, weighted, and cut off again."""

from pathlib import Path

import pytest
import torch

from difformer_plugin.bench.workload import parse_beams
from difformer_plugin.decoding.generator import DiffusionGenerator
from difformer_plugin.decoding.options import DecodingOptions
from difformer_plugin.distillation.own_outputs import decoding_options
from difformer_plugin.distillation.settings import OwnSettings
from difformer_plugin.errors import UserError
from difformer_plugin.families.joint.config import JointDiffusionConfig, check_config
from difformer_plugin.families.joint.objective import JointDiffusionLoss, JointDiffusionLossConfig
from difformer_plugin.tuning.tune import reference_options

PAD, EOS, MARGIN = 1, 2, 4


@pytest.fixture
def batch(sentences, joined_task):
    """Sources of 3, 7 and 5 tokens; the last target is longer than its padded length."""
    return sentences([3, 7, 5], seed=1), sentences([4, 2, 12], "target", seed=2)


@pytest.fixture
def padded(build_joint):
    return lambda **options: build_joint(length_by_padding=True, padding_margin=MARGIN, **options)


@pytest.mark.parametrize("conditioning", ["partial", "full"])
def test_targets_are_padded_with_eos(padded, batch, conditioning):
    model, (source, target) = padded(conditioning=conditioning), batch
    with torch.no_grad():
        output = model(source, target)
    expected, padding = [], []
    for own, goal in zip(source, target):
        own, goal = own[own != PAD].tolist(), goal[goal != PAD].tolist()
        more = max(0, len(own) + MARGIN - len(goal))
        lead = own if conditioning == "full" else []
        expected += lead + goal + [EOS] * more
        padding += [False] * len(lead + goal) + [True] * more
    assert output.tokens.tolist() == expected
    assert output.padding.tolist() == padding
    # soft labels know nothing of padding: its place is that of the target's BOS
    assert set(output.places[output.padding].tolist()) <= {0, 14, 28}


def test_padding_and_words_weigh_alike(padded, batch, joined_task):
    output = padded()(*batch)
    for factor in (None, 1.0, 0.25):
        config = JointDiffusionLossConfig(padding_weight=factor)
        weights = JointDiffusionLoss(config, joined_task).token_weights(output)
        assert weights.mean() == pytest.approx(1)
        words, padding = weights[~output.padding], weights[output.padding]
        if factor is None:
            assert words.sum() == pytest.approx(padding.sum().item())
        else:
            assert (padding / words[0]).tolist() == pytest.approx([factor] * len(padding))


def test_a_weight_multiplies_every_cost_of_a_token(padded, batch, joined_task):
    output = padded()(*batch)
    loss = JointDiffusionLoss(JointDiffusionLossConfig(padding_weight=0.0), joined_task)
    projection = torch.nn.Linear(8, len(joined_task.target_dictionary), bias=False)
    found = loss.terms(projection, output)
    words = ~output.padding  # only they are left, and count as before
    rest = output._replace(
        z_0=output.z_0[words],
        z_0_hat=output.z_0_hat[words],
        tokens=output.tokens[words],
        padding=None,
    )
    expected = JointDiffusionLoss(JointDiffusionLossConfig(), joined_task).terms(projection, rest)
    for name in ("mse", "anchor"):
        assert found[name].item() == pytest.approx(expected[name].item(), rel=1e-5)


@torch.no_grad()
def test_what_is_generated_ends_at_the_first_eos(padded, batch, joined_task, monkeypatch):
    model, (source, _) = padded(), batch
    own_round = model.denoiser.round

    def round_to_eos(z):  # now and then
        tokens, log_probs = own_round(z)
        return tokens.masked_fill(torch.arange(len(tokens)) % 7 == 5, EOS), log_probs

    monkeypatch.setattr(model.denoiser, "round", round_to_eos)
    options = DecodingOptions(decoding_steps=3, noise_beam_size=12)
    generator = DiffusionGenerator(joined_task.target_dictionary, options, 1, retain_history=True)
    _, candidates = generator.draw([model], source)
    lengths = [[len(c.tokens) for c in own] for own in candidates]
    for own, length in zip(candidates, source.ne(PAD).sum(1).tolist()):
        for candidate in own:
            tokens = candidate.tokens.tolist()
            assert EOS not in tokens[:-1]
            assert tokens[-1] == EOS or len(tokens) == length + MARGIN
            assert len(candidate.log_probs) == len(tokens)
            assert all(EOS not in t.tolist()[:-1] for t, _ in candidate.history)
    assert len({n for own in lengths for n in own}) > 3


@pytest.mark.parametrize(
    "options", [{"length_beam_size": 2}, {"force_length": 5}, {"length_scale": 1.1}], ids=str
)
def test_there_is_no_length_to_choose(padded, joined_task, options):
    generator = DiffusionGenerator(joined_task.target_dictionary, DecodingOptions(**options), 1)
    with pytest.raises(UserError, match="does nothing for this model.* models that predict the le"):
        generator.check_models([padded()])


@pytest.mark.parametrize(
    "name, why", [("length", "predicts no length"), ("likelihood", "has no probabilities of a")]
)
def test_what_does_not_choose(padded, joined_task, name, why):
    """The padding behind a target tells its length, and candidates have lost theirs."""
    options = DecodingOptions(noise_beam_size=2, rerank=f"own=1,{name}=0.1")
    generator = DiffusionGenerator(joined_task.target_dictionary, options, 1)
    with pytest.raises(UserError, match=f"--rerank {name}: .* {why}.*leave it out"):
        generator.check_models([padded()])


def test_candidates_of_other_commands_have_one_length_and_more_noises(padded):
    """Those of `difformer tune` and `bench` (21), and of `difformer distill --self` (10)."""
    model = padded()
    assert model.predicts_length and not model.tries_lengths
    options = reference_options({}, model.tries_lengths)
    assert (options.length_beam_size, options.noise_beam_size) == (1, 21)
    assert parse_beams("21", model.tries_lengths) == (1, 21)
    own = decoding_options(
        OwnSettings("self.pt", Path("raw"), 0.0, 0.0, {}, None), model.tries_lengths
    )
    assert (own["length_beam_size"], own["noise_beam_size"]) == (1, 10)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"padding_margin": -1}, "--padding-margin must be at least 0"),
        ({"pred_length_offset": True}, "--pred-length-offset does nothing"),
    ],
)
def test_contradictions(options, message):
    with pytest.raises(UserError, match=message):
        check_config(JointDiffusionConfig(length_by_padding=True, **options))
