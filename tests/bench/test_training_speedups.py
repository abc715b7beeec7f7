"""The speed-ups of training do not change losses and gradients."""

import pytest
import torch

from difformer_plugin.bench.training_speedups import ENGINE, PLAIN, only, training_with
from difformer_plugin.families.embeddings.objective import DifformerLoss, DifformerLossConfig
from difformer_plugin.families.joint.objective import JointDiffusionLoss, JointDiffusionLossConfig
from difformer_plugin.networks.layers import Attention
from difformer_plugin.networks.layout import Layout, Rows

ALONE = [only(name) for name in PLAIN._fields]


@pytest.fixture
def update(build, task, sentences):
    """A function that computes a batch's loss, gradients and log with some speed-ups."""

    def update(speedups, left=False, dtype=torch.float32, **options):
        model = build(self_cond=True, dropout=0.0, **options).to(dtype).train()
        criterion = DifformerLoss(DifformerLossConfig(label_smoothing=0.1), task)
        sample = {
            "net_input": {"src_tokens": sentences([5, 2, 9, 4, 7, 1])},
            "target": sentences([3, 6, 8, 1, 2, 2], "target", left),
        }
        torch.manual_seed(3)  # half of these sentences are conditioned
        with training_with(speedups, model, criterion):
            loss, size, log = criterion(model, sample)
        (loss / size).backward()
        return loss, {name: p.grad for name, p in model.named_parameters()}, log

    return update


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("speedups", [ENGINE, *ALONE], ids=["all", *PLAIN._fields])
def test_loss_and_gradients_match_the_plain_path(update, speedups, left):
    for options in ({}, {"share_decoder_input_output_embed": True, "embed_norm": True}):
        expected, ours = update(PLAIN, left, **options), update(speedups, left, **options)
        torch.testing.assert_close(ours[0], expected[0])
        for name, gradient in expected[1].items():
            torch.testing.assert_close(ours[1][name], gradient, atol=1e-5, rtol=1e-4)
        for name, value in expected[2].items():
            torch.testing.assert_close(torch.as_tensor(ours[2][name]), torch.as_tensor(value))


JOINT = {
    "partial": {},
    "blind": {"blind_source": True},
    "full": {"conditioning": "full"},
    "padded": {"length_by_padding": True, "padding_margin": 3},
    "epsilon": {"prediction": "epsilon"},
}


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("options", JOINT.values(), ids=JOINT)
def test_joint_sequences_match_the_plain_path(build_joint, joined_task, sentences, options, left):
    """Targets without padding against padded ones, whichever side it is on."""

    def update(speedups, left):
        model = build_joint(self_cond=True, dropout=0.0, **options).eval()
        criterion = JointDiffusionLoss(JointDiffusionLossConfig(), joined_task)
        sample = {
            "net_input": {"src_tokens": sentences([5, 2, 9, 4])},
            "target": sentences([3, 6, 8, 1], "target", left),
        }
        with training_with(speedups, model, criterion):
            loss, size, _ = criterion(model, sample)
        (loss / size).backward()
        return loss, {name: p.grad for name, p in model.named_parameters()}

    expected, ours = update(PLAIN, left), update(ENGINE, left)
    torch.testing.assert_close(ours[0], expected[0], rtol=1e-4, atol=1e-4)
    for name, gradient in expected[1].items():
        if gradient is not None:
            torch.testing.assert_close(ours[1][name], gradient, atol=1e-4, rtol=1e-3)


def test_only_some_sentences_of_that_batch_are_conditioned(build, sentences):
    model = build(self_cond=True).train()
    torch.manual_seed(3)
    mask = torch.ones(6, 10, dtype=torch.bool)
    source = sentences([5, 2, 9, 4, 7, 1])
    conditioned = model._corrupt(source, torch.zeros(6, 10, 8), mask).conditioned
    assert 0 < conditioned.sum() < 6


def test_gradients_in_half_precision_are_close_to_float32(update):
    def error(speedups):
        full, half = update(PLAIN)[1], update(speedups, dtype=torch.bfloat16)[1]
        both = [torch.cat([g[name].flatten().float() for name in full]) for g in (full, half)]
        return ((both[1] - both[0]).norm() / both[0].norm()).item()

    assert error(ENGINE) < 1.2 * error(PLAIN) < 0.1


def test_half_precision_attention_is_computed_in_float32():
    """Its gradient then has the round-off of its inputs and outputs only."""
    attention, rows = Attention(64, 4, dropout=0.0).bfloat16(), Rows([20] * 8, "cpu")
    x, weights = torch.randn(160, 64).bfloat16(), torch.randn(160, 64)

    def gradient(speedups, dtype):
        module, own = attention.to(dtype), x.to(dtype, copy=True).requires_grad_()
        with training_with(speedups, module):
            (module(own, rows, None).float() * weights).sum().backward()
        attention.bfloat16()
        return own.grad.double()

    exact = gradient(PLAIN, torch.float64)
    errors = [(gradient(m, torch.bfloat16) - exact).norm() / exact.norm() for m in (ENGINE, PLAIN)]
    assert errors[0] < 0.02 and errors[0] < 1.2 * errors[1]


def test_speedups_are_off_within_the_context_only(build):
    model = build()
    dropout = model.denoiser.layers[0].dropout
    fast = dropout.forward
    with pytest.raises(ValueError), training_with(PLAIN, model):
        assert model.layout == Layout.dense and dropout.forward != fast
        raise ValueError
    assert model.layout != Layout.dense and dropout.forward == fast
