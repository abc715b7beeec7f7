"""The anisotropy score against its double sum."""

import pytest
import torch

from difformer_plugin.diffusion.gaussian.anisotropy import anisotropy


def double_loop(embeddings):
    count, total = len(embeddings), 0.0
    for i in range(count):
        for j in range(count):
            if i != j:
                a, b = embeddings[i].double(), embeddings[j].double()
                total += (a @ b / (a.norm() * b.norm())).item()
    return total / (count * (count - 1))


@pytest.mark.parametrize("shift", [0.0, 0.5, 3.0])
def test_double_loop(shift):
    embeddings = torch.randn(25, 6, generator=torch.Generator().manual_seed(2)) + shift
    assert anisotropy(embeddings) == pytest.approx(double_loop(embeddings), abs=1e-9)


def test_closed_forms():
    assert anisotropy(torch.eye(5)) == pytest.approx(0, abs=1e-12)
    assert anisotropy(torch.tensor([[1.0, 0.0], [-3.0, 0.0]])) == pytest.approx(-1)
    collapsed = torch.arange(1, 9)[:, None] * torch.tensor([0.3, -2.0, 0.1])
    assert anisotropy(collapsed) == pytest.approx(1)


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_embeddings(count):
    assert anisotropy(torch.ones(count, 4)) == 0
