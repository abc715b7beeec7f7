"""Sums over tokens in chunks, against autograd of all logits at once."""

import pytest
import torch
from torch.nn import functional as F

from difformer_plugin.families import chunked_sums as chunked
from difformer_plugin.families.chunked_sums import Weighted, by_autograd, chunked_sums
from difformer_plugin.families.embeddings.anchor import SmoothedNLL

TYPES, COUNT = 30, 17


def costs(logits, targets, weights):
    """(m, 2): a weighted cross-entropy, and something else that needs no gradient."""
    log_p = logits.log_softmax(-1)
    nll = -log_p.gather(1, targets[:, None])[:, 0]
    return torch.stack([weights.float() * nll + 0.1 * logits.square().sum(-1), nll.detach()], -1)


@pytest.fixture
def case():
    latents = torch.randn(COUNT, 6, requires_grad=True)
    table = torch.randn(TYPES, 6, requires_grad=True)
    return latents, table, torch.randint(TYPES, (COUNT,)), torch.rand(COUNT, dtype=torch.float64)


def gradients(loss, *leaves):
    return [g.float() for g in torch.autograd.grad(loss, leaves)]


@pytest.mark.parametrize("rows", [1, 5, COUNT - 1, COUNT, 1000])
def test_chunks_agree_with_autograd(case, rows, monkeypatch):
    monkeypatch.setitem(chunked.CHUNK_LOGITS, "cpu", rows * TYPES + 3)
    latents, table, *columns = case
    expected = costs(latents @ table.T, *columns).sum(0)
    sizes = []

    def counted(logits, *own):
        sizes.append(len(logits))
        return costs(logits, *own)

    found = chunked_sums(by_autograd(counted), latents, table, *columns)
    torch.testing.assert_close(found, expected)
    assert sum(sizes) == COUNT and max(sizes) == min(rows, COUNT)
    ours, theirs = (gradients(-2.5 * sums[0], latents, table) for sums in (found, expected))
    for own, other in zip(ours, theirs):
        torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-5)


def test_weights_of_tokens(case, monkeypatch):
    """In chunks and by autograd alike; what each token costs without its weight is noted."""
    monkeypatch.setitem(chunked.CHUNK_LOGITS, "cpu", 5 * TYPES)
    latents, table, targets, weights = case
    logits = latents @ table.T
    plain = F.cross_entropy(logits, targets, reduction="none", label_smoothing=0.1)
    expected = (weights.float() * plain).sum()
    wanted = gradients(expected, latents, table)
    costs_of = Weighted(SmoothedNLL(0.1))
    found = chunked_sums(costs_of, latents, table, weights.float(), targets)
    torch.testing.assert_close(found[0], expected)
    assert len(costs_of.unweighted) == 4
    torch.testing.assert_close(torch.cat(costs_of.unweighted), plain)
    for own, other in zip(gradients(found[0], latents, table), wanted):
        torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        assert chunked_sums(costs_of, latents, table, weights.float(), targets).equal(found)


def test_part_of_a_table(case):
    """Its first rows, which are no types, get no gradient; nor does what is not asked for."""
    latents, table, targets, weights = case
    columns = targets % (TYPES - 4), weights
    found = chunked_sums(by_autograd(costs), latents.detach(), table[4:], *columns)
    (gradient,) = torch.autograd.grad(found[0], [table])
    assert not gradient[:4].any()
    (expected,) = gradients(costs(latents @ table[4:].T, *columns).sum(0)[0], table)
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-5)


def test_only_the_first_sum_has_a_gradient(case):
    latents, table, *columns = case
    found = chunked_sums(by_autograd(costs), latents, table, *columns)
    first = gradients(found[0], latents)[0]
    again = chunked_sums(by_autograd(costs), latents, table, *columns)
    assert gradients(again.sum(), latents)[0].equal(first)


def test_nothing_to_sum(case):
    latents, table, *columns = (x[:0] if len(x) == COUNT else x for x in case)
    found = chunked_sums(by_autograd(costs), latents, table, *columns)
    assert found.tolist() == [0, 0]
    of_latents, of_table = gradients(found[0], latents, table)
    assert of_latents.shape == (0, 6) and of_table.shape == (TYPES, 6) and not of_table.any()


def test_without_gradients(case):
    latents, table, *columns = case
    expected = chunked_sums(by_autograd(costs), latents, table, *columns)
    with torch.no_grad():
        found = chunked_sums(by_autograd(costs), latents, table, *columns)
    assert not found.requires_grad and expected.requires_grad and found.equal(expected.detach())


@pytest.mark.parametrize("how", ["autocast", "bfloat16", "float16"])
def test_half_precision(case, how):
    """Logits are rounded and their costs are not: as near to float32 as the plain path is."""
    latents, table, *columns = case
    exact = costs(latents @ table.T, *columns).sum(0)
    wanted = gradients(exact[0], latents, table)
    if how != "autocast":
        latents, table = (x.detach().to(getattr(torch, how)).requires_grad_() for x in case[:2])
    seen = []

    def watched(logits, *own):
        assert not torch.is_autocast_enabled("cpu")
        seen.append(logits.dtype)
        return costs(logits, *own)

    with torch.autocast("cpu", torch.bfloat16, enabled=how == "autocast"):
        found = chunked_sums(by_autograd(watched), latents, table, *columns)
        plain = costs(F.linear(latents, table).float(), *columns).sum(0)
    assert found.dtype == torch.float32 and set(seen) == {torch.float32}
    ours, theirs = (torch.autograd.grad(x[0], (latents, table)) for x in (found, plain))
    for own, other, true, leaf in zip(ours, theirs, wanted, (latents, table)):
        assert own.dtype == leaf.dtype
        errors = [(x.float() - true).norm() / true.norm() for x in (own, other)]
        assert errors[0] < 1.2 * errors[1] + 1e-3 and errors[0] < 0.02
    torch.testing.assert_close(found, exact, rtol=2e-2, atol=1e-2)


def test_no_second_derivatives(case):
    latents, table, *columns = case
    found = chunked_sums(by_autograd(costs), latents, table, *columns)
    (first,) = torch.autograd.grad(found[0], latents, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable|does not require grad"):
        first.sum().backward()
