"""The means of training compute what the plain path does."""

import pytest
import torch

from difformer_plugin.families.embeddings.objective import DifformerLoss, DifformerLossConfig
from difformer_plugin.networks.layers import Attention
from difformer_plugin.networks.layout import Rows
from difformer_plugin.networks.speedups import ENGINE, PLAIN, only, training_by

ALONE = [only(name) for name in PLAIN._fields]


@pytest.fixture
def update(build, task, sentences):
    """A function that gives the loss of a batch by some means, and all gradients."""

    def update(means, left=False, dtype=torch.float32, **options):
        model = build(self_cond=True, dropout=0.0, **options).to(dtype).train()
        criterion = DifformerLoss(DifformerLossConfig(label_smoothing=0.1), task)
        sample = {
            "net_input": {"src_tokens": sentences([5, 2, 9, 4, 7, 1])},
            "target": sentences([3, 6, 8, 1, 2, 2], "target", left),
        }
        torch.manual_seed(3)  # half of these sentences are conditioned
        with training_by(means, model, criterion):
            loss, size, log = criterion(model, sample)
        (loss / size).backward()
        return loss, {name: p.grad for name, p in model.named_parameters()}, log

    return update


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("means", [ENGINE, *ALONE], ids=["all", *PLAIN._fields])
def test_loss_and_gradients_are_those_of_the_plain_path(update, means, left):
    for options in ({}, {"share_decoder_input_output_embed": True, "embed_norm": True}):
        expected, ours = update(PLAIN, left, **options), update(means, left, **options)
        torch.testing.assert_close(ours[0], expected[0])
        for name, gradient in expected[1].items():
            torch.testing.assert_close(ours[1][name], gradient, atol=1e-5, rtol=1e-4)
        for name, value in expected[2].items():
            torch.testing.assert_close(torch.as_tensor(ours[2][name]), torch.as_tensor(value))


def test_some_sentences_of_that_batch_are_conditioned(build, sentences):
    model = build(self_cond=True).train()
    torch.manual_seed(3)
    conditioned = model._draw(sentences([5, 2, 9, 4, 7, 1]), torch.zeros(6, 10, 8))[2]
    assert 0 < conditioned.sum() < 6


def test_gradients_in_half_precision_are_near_those_of_float32(update):
    def error(means):
        full, half = update(PLAIN)[1], update(means, dtype=torch.bfloat16)[1]
        both = [torch.cat([g[name].flatten().float() for name in full]) for g in (full, half)]
        return ((both[1] - both[0]).norm() / both[0].norm()).item()

    assert error(ENGINE) < 1.2 * error(PLAIN) < 0.1


def test_attention_of_halves_is_attention_of_what_they_hold():
    """Computed in float32, its gradient has the round-off of its inputs and outputs alone."""
    attention, rows = Attention(64, 4, dropout=0.0).bfloat16(), Rows([20] * 8, "cpu")
    x, weights = torch.randn(160, 64).bfloat16(), torch.randn(160, 64)

    def gradient(means, dtype):
        module, own = attention.to(dtype), x.to(dtype, copy=True).requires_grad_()
        with training_by(means, module):
            (module(own, rows, None).float() * weights).sum().backward()
        attention.bfloat16()
        return own.grad.double()

    exact = gradient(PLAIN, torch.float64)
    errors = [(gradient(m, torch.bfloat16) - exact).norm() / exact.norm() for m in (ENGINE, PLAIN)]
    assert errors[0] < 0.02 and errors[0] < 1.2 * errors[1]


def test_means_are_set_within_the_context_alone(build):
    model = build()
    with pytest.raises(ValueError), training_by(PLAIN, model):
        assert model.means == model.denoiser.layers[0].dropout.means == PLAIN
        raise ValueError
    assert model.means == model.denoiser.layers[0].dropout.means == ENGINE
