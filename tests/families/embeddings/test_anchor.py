"""The anchor loss in chunks against torch's cross-entropy of all logits."""

import pytest
import torch
from torch.nn import functional as F

from difformer_plugin.families import chunked_sums as chunked
from difformer_plugin.families.chunked_sums import chunked_sums
from difformer_plugin.families.embeddings.anchor import SmoothedNLL

VOCABULARY = 50


def smoothed_nll(logits, targets, epsilon):
    """The means over tokens, with and without smoothing, as they are defined."""
    return SmoothedNLL(epsilon).function(logits, targets).mean(0)


def chunked_smoothed_nll(z, weight, targets, epsilon):
    """The same from latents, a chunk of logits at a time."""
    return chunked_sums(SmoothedNLL(epsilon), z, weight, targets) / len(z)


def test_smoothed_nll_agrees_with_torch():
    logits, targets = torch.randn(9, 5), torch.randint(5, (9,))
    smoothed, nll = smoothed_nll(logits.bfloat16(), targets, 0.3)
    expected = F.cross_entropy(logits.bfloat16().float(), targets, label_smoothing=0.3)
    torch.testing.assert_close(smoothed, expected)
    assert smoothed.dtype == nll.dtype == torch.float32


@pytest.fixture
def case():
    """Latents (23, 8), weights (50, 8) and targets, some of them more than once."""
    weight = torch.randn(VOCABULARY, 8, requires_grad=True)
    return torch.randn(23, 8, requires_grad=True), weight, torch.randint(VOCABULARY // 4, (23,))


def gradients(loss, z, weight, scale=1.0):
    z.grad = weight.grad = None
    (loss * scale).backward()
    return z.grad.float() / scale, weight.grad.float() / scale


@pytest.mark.parametrize("rows", [1, 4, 22, 23, 100])
@pytest.mark.parametrize("epsilon", [0.0, 0.1])
def test_chunks_agree_with_torch(case, rows, epsilon, monkeypatch):
    monkeypatch.setitem(chunked.CHUNK_LOGITS, "cpu", rows * VOCABULARY + 7)
    z, weight, targets = case
    expected = F.cross_entropy(z @ weight.T, targets, label_smoothing=epsilon)
    smoothed, nll = chunked_smoothed_nll(z, weight, targets, epsilon)
    torch.testing.assert_close(smoothed, expected)
    torch.testing.assert_close(nll, F.cross_entropy(z @ weight.T, targets))
    again = chunked_smoothed_nll(z, weight, targets, epsilon)[1]
    assert not any(g.any() for g in torch.autograd.grad(again, (z, weight)))
    for gradient, wanted in zip(
        gradients(-3.5 * smoothed, z, weight), gradients(expected, z, weight)
    ):
        torch.testing.assert_close(gradient, -3.5 * wanted)


def test_without_gradients_and_without_those_of_the_latents(case):
    z, weight, targets = case
    with torch.no_grad():
        smoothed, _ = chunked_smoothed_nll(z, weight, targets, 0.1)
    assert not smoothed.requires_grad
    torch.testing.assert_close(smoothed, smoothed_nll(z @ weight.T, targets, 0.1)[0])
    chunked_smoothed_nll(z.detach(), weight, targets, 0.1)[0].backward()
    expected = weight.grad
    weight.grad = None
    smoothed_nll(z.detach() @ weight.T, targets, 0.1)[0].backward()
    torch.testing.assert_close(expected, weight.grad)


@pytest.mark.parametrize("how", ["bfloat16", "float16", "autocast"])
def test_half_precision(case, how):
    """Errors are those of all logits at once; float16 has the scale of a GradScaler."""
    z, weight, targets = case
    scale = 2.0**10 if how == "float16" else 1.0
    with torch.autocast("cpu", torch.bfloat16, enabled=False):
        exact = gradients(smoothed_nll(z @ weight.T, targets, 0.1)[0], z, weight)
    if how != "autocast":
        z, weight = (x.detach().to(getattr(torch, how)).requires_grad_() for x in (z, weight))
    with torch.autocast("cpu", torch.bfloat16, enabled=how == "autocast"):
        smoothed, _ = chunked_smoothed_nll(z, weight, targets, 0.1)
        ours = gradients(smoothed, z, weight, scale)
        assert z.grad.dtype == z.dtype and weight.grad.dtype == weight.dtype
        plain = gradients(smoothed_nll(F.linear(z, weight), targets, 0.1)[0], z, weight, scale)
    assert smoothed.dtype == torch.float32
    for gradient, reference, wanted in zip(ours, plain, exact):
        error, of_plain = (gradient - wanted).norm(), (reference - wanted).norm()
        assert error < 1.2 * of_plain + 1e-3 * wanted.norm()


def test_float16_keeps_what_is_too_small_for_it():
    """A gradient of 1e-9 is 0 in float16 until it has been scaled."""
    z = torch.ones(1, 2, dtype=torch.float16, requires_grad=True)
    weight = torch.tensor([[10.0, 10.0], [0.0, 0.0]], dtype=torch.float16, requires_grad=True)
    loss, _ = chunked_smoothed_nll(z, weight, torch.tensor([0]), 0.0)
    (loss * 2**16).backward()
    p = torch.tensor(-20.0).exp().item()
    assert weight.grad[1, 0].item() / 2**16 == pytest.approx(p, rel=1e-2)
