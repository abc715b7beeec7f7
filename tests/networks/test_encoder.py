"""The encoder's padding, and the length predictor."""

from types import SimpleNamespace

import pytest
import torch

from difformer_plugin.networks.encoder import LengthPredictor
from difformer_plugin.networks.layers import Memory


def predictor(offset=False, stop_gradient=False):
    return LengthPredictor(
        SimpleNamespace(model_dim=6, sg_length_pred=stop_gradient, pred_length_offset=offset)
    )


def memory_of(*lengths):
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    return Memory(torch.randn(len(lengths), max(lengths), 6), mask)


@pytest.mark.parametrize("offset", [False, True])
def test_classes_and_lengths_are_inverse(offset):
    predict, memory = predictor(offset), memory_of(5, 17)
    lengths = predict.lengths(memory)
    assert lengths.shape == (2, 256)
    for c in (0, 1, 100, 255):
        assert predict.classes(lengths[:, c], memory).tolist() == [c, c]
    for length in (2, 30, 120):
        classes = predict.classes(torch.tensor([length, length]), memory)
        assert lengths[range(2), classes].tolist() == [length, length]


def test_what_a_class_stands_for():
    memory = memory_of(5, 17)
    assert predictor().lengths(memory)[:, 40].tolist() == [40, 40]
    assert predictor(offset=True).lengths(memory)[:, 128 + 3].tolist() == [5 + 3, 17 + 3]


@pytest.mark.parametrize("offset", [False, True])
def test_lengths_without_a_class_take_the_nearest(offset):
    predict, memory = predictor(offset), memory_of(200, 3)
    wanted = torch.tensor([2, 900])
    known = predict.lengths(memory)
    nearest = (known - wanted[:, None]).abs().argmin(1)
    assert predict.classes(wanted, memory).tolist() == nearest.tolist()


def test_logits_are_of_the_mean_of_real_states():
    predict, memory = predictor(), memory_of(2, 5)
    for row, length in enumerate((2, 5)):
        mean = sum(memory.states[row, i] for i in range(length)) / length
        expected = predict.embed_length.weight @ mean
        torch.testing.assert_close(predict(memory)[row], expected)
    noisy = torch.where(memory.mask[..., None], memory.states, torch.tensor(1e4))
    torch.testing.assert_close(predict(Memory(noisy, memory.mask)), predict(memory))


@pytest.mark.parametrize("stopped", [False, True])
def test_stop_gradient(stopped):
    predict, memory = predictor(stop_gradient=stopped), memory_of(2, 4)
    memory.states.requires_grad_()
    predict(memory).square().sum().backward()
    assert predict.embed_length.weight.grad.any()
    assert (memory.states.grad is None) == stopped


@pytest.mark.parametrize("options", [{}, {"encoder_learned_pos": True}])
def test_a_source_does_not_depend_on_its_padding(build, sentences, options):
    encoder = build(**options).encoder
    alone = sentences([4])
    expected = encoder(alone).states[0]
    for left in (False, True):
        batch = torch.full((2, 11), encoder.pad)
        place = slice(-6, None) if left else slice(6)
        batch[0], batch[1, place] = sentences([9])[0], alone[0]
        memory = encoder(batch)
        torch.testing.assert_close(memory.states[1][memory.mask[1]], expected)


def test_layernorm_embedding_normalises_what_the_layers_read(build, sentences):
    encoder, seen = build(layernorm_embedding=True).encoder, []
    encoder.layers[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    encoder(sentences([5, 5]))
    torch.testing.assert_close(seen[0].mean(-1), torch.zeros(14), atol=1e-5, rtol=0)
    torch.testing.assert_close(seen[0].var(-1, correction=0), torch.ones(14), atol=1e-2, rtol=0)
