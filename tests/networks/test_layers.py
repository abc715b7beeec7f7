"""Transformer layers against explicit formulas, and their blindness to padding."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from difformer_plugin.networks.layers import (
    Attention,
    Memory,
    TransformerLayer,
    feed_forward,
    init_bert,
    timestep_embedding,
)
from difformer_plugin.networks.layout import Layout, Rows


def explicit_attention(attention, x, memory, mask):
    """One sentence, head and query at a time: softmax(q k / sqrt(d)) v over real positions."""
    dim, heads = x.shape[-1], attention.heads
    size = dim // heads
    out = torch.zeros_like(x)
    for b in range(len(x)):
        real = memory[b][mask[b]]
        q, k, v = attention.q_proj(x[b]), attention.k_proj(real), attention.v_proj(real)
        for h in range(heads):
            part = slice(h * size, (h + 1) * size)
            for i in range(len(q)):
                weights = torch.exp(k[:, part] @ q[i, part] / math.sqrt(size))
                out[b, i, part] = (weights[:, None] * v[:, part]).sum(0) / weights.sum()
    return attention.out_proj(out)


@pytest.fixture
def batch():
    """x (2, 3, 8), memory (2, 5, 8) and its mask, padded on the left and on the right."""
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 0]]).bool()
    return torch.randn(2, 3, 8), torch.randn(2, 5, 8), mask


def attend(attention, x, memory, mask):
    """The attention of tokens without padding (B, L, C) to a memory."""
    rows = Rows([x.shape[1]] * len(x), x.device)
    return attention(x.flatten(0, 1), rows, mask, attention.keys_values(memory)).view(x.shape)


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_attention_is_softmax(batch, heads):
    attention = Attention(8, heads, dropout=0.5).eval()
    torch.testing.assert_close(attend(attention, *batch), explicit_attention(attention, *batch))


def test_rows_attend_to_themselves():
    """Tokens of runs of unequal length: each sees its own run, whatever the layout."""
    attention, x = Attention(8, 2, dropout=0.0), torch.randn(9, 8)
    rows = Rows([4, 2, 3], x.device)
    ours = attention(x, rows, rows.mask).split([4, 2, 3])
    for run, out in zip(x.split([4, 2, 3]), ours):
        own = run[None]
        expected = explicit_attention(attention, own, own, torch.ones(1, len(run)).bool())
        torch.testing.assert_close(out, expected[0])


def test_attention_drops_out_in_training_only(batch):
    attention = Attention(8, 2, dropout=0.5)
    assert not torch.equal(attend(attention, *batch), attend(attention, *batch))
    assert torch.equal(attend(attention.eval(), *batch), attend(attention, *batch))


def layer_config(normalize_before=False):
    return SimpleNamespace(
        model_dim=8,
        decoder_attention_heads=2,
        decoder_ffn_embed_dim=12,
        decoder_normalize_before=normalize_before,
        activation_fn="gelu",
        attention_dropout=0.0,
        activation_dropout=0.0,
        dropout=0.0,
    )


@pytest.mark.parametrize("normalize_before", [False, True])
def test_padding_does_not_reach_real_positions(normalize_before):
    layer = TransformerLayer(layer_config(normalize_before), "decoder", cross_attention=True)
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0]]).bool()
    x, states = torch.randn(2, 2, 4, 8)
    memory_mask = torch.tensor([[0, 1, 1, 1], [0, 0, 0, 1]]).bool()
    layout = Layout.dense(mask)

    def run(x, *memory):
        seen = (layer.encoder_attn.keys_values(memory[0]), memory[1]) if memory else ()
        return layer(x.flatten(0, 1), layout, *seen).view(x.shape)

    out = run(x, states, memory_mask)
    other_x = torch.where(mask[..., None], x, 1e3 * torch.randn(2, 4, 8))
    other_states = torch.where(memory_mask[..., None], states, 1e3 * torch.randn(2, 4, 8))
    other = run(other_x, other_states, memory_mask)
    torch.testing.assert_close(out[mask], other[mask])
    assert not torch.allclose(out[mask], run(x)[mask])  # the memory has an effect


def test_memory_selects_and_counts():
    states, mask = torch.randn(3, 4, 2), torch.arange(4) < torch.tensor([[2], [4], [1]])
    memory = Memory(states, mask)
    assert memory.lengths().tolist() == [2, 4, 1]
    chosen = memory.select(torch.tensor([2, 2, 0]))
    assert chosen.lengths().tolist() == [1, 1, 2] and torch.equal(chosen.states[1], states[2])
    assert memory.select(torch.tensor([False, True, False])).lengths().tolist() == [4]


@pytest.mark.parametrize("dim", [6, 7])
def test_timestep_embedding(dim):
    """cos and sin of t x 10000^(-i / half) (Vaswani et al., 2017), cosines first, a zero if odd."""
    t = torch.tensor([0.0, 1.0, 37.5, 999.0])
    ours, half = timestep_embedding(t, dim), dim // 2
    assert ours.shape == (4, dim) and ours.dtype == torch.float32
    for row, time in zip(ours.tolist(), t.tolist()):
        angles = [time * math.exp(-math.log(10000) * i / half) for i in range(half)]
        expected = [*map(math.cos, angles), *map(math.sin, angles)] + [0.0] * (dim % 2)
        assert row == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    "name, activation",
    [
        ("relu", lambda x: x * (x > 0)),
        ("gelu", lambda x: x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))),
    ],
)
def test_feed_forward(name, activation):
    net, x = feed_forward(3, 5, 2, name, dropout=0.5).eval(), torch.randn(4, 3)
    (w1, b1), (w2, b2) = ((net[i].weight, net[i].bias) for i in (0, 2))
    torch.testing.assert_close(net(x), activation(x @ w1.T + b1) @ w2.T + b2)


def test_init_bert():
    linear, table, plain = nn.Linear(300, 200), nn.Embedding(500, 100, 3), nn.Embedding(400, 100)
    for module in (linear, table, plain):
        init_bert(module)
        count = module.weight.numel()
        assert module.weight.std().item() == pytest.approx(0.02, rel=6 / math.sqrt(count))
        assert abs(module.weight.mean().item()) < 4 * 0.02 / math.sqrt(count)
    assert not linear.bias.any() and not table.weight[3].any()
    assert table.weight[[2, 4]].all() and plain.weight[0].any()
