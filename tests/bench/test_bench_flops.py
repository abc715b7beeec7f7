import pytest
import torch
from torch import nn
from torch.nn import functional as F

from difformer_plugin.bench.flops import MatrixRate, count
from difformer_plugin.bench.systems import ROWS, Setting
from difformer_plugin.decoding.generator import DiffusionGenerator
from difformer_plugin.decoding.means import PLAIN


def test_a_linear_layer_takes_two_operations_a_weight_and_row():
    layer = nn.Linear(7, 11)
    assert count(lambda: layer(torch.ones(3, 5, 7))) == 2 * 15 * 7 * 11


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("masked", [False, True])
def test_an_attention_takes_two_products(dtype, masked):
    q, k = torch.rand(2, 4, 6, 16, dtype=dtype), torch.rand(2, 4, 9, 16, dtype=dtype)
    mask = torch.ones(2, 1, 1, 9, dtype=torch.bool) if masked else None
    with torch.no_grad():
        found = count(lambda: F.scaled_dot_product_attention(q, k, k, mask))
    assert found == 2 * (2 * 2 * 4 * 6 * 9 * 16)


@pytest.mark.parametrize("name", ["plain", "engine"])
def test_decoding_takes_what_its_layers_say(build, task, sentences, name):
    """The closed form of a whole decoding, with one sentence and so without padding."""
    model, steps, source = build(), 3, 7
    src_tokens = sentences([source - 2])
    row, options = ROWS[name], Setting(steps, (1, 1), 1).options()
    options.force_length = 9
    target = options.force_length + 2
    generator = DiffusionGenerator(task.target_dictionary, options, 1, means=row.means)
    sample = {"id": torch.tensor([0]), "net_input": {"src_tokens": src_tokens}}
    found = count(lambda: generator.generate([model], sample))

    cfg, vocabulary = model.cfg, len(task.target_dictionary)
    dim, latent = cfg.model_dim, cfg.latent_dim
    layers, ffn = cfg.encoder_layers, cfg.encoder_ffn_embed_dim
    weights = 4 * dim * dim + 2 * dim * ffn
    encoder = source * dim * latent + layers * (source * weights + 2 * source * source * dim)
    layers, ffn = cfg.decoder_layers, cfg.decoder_ffn_embed_dim
    weights = 6 * dim * dim + 2 * dim * ffn  # the key and value of sources apart
    step = target * 2 * dim * latent + 2 * dim * 4 * dim
    step += layers * (target * weights + 2 * target * (target + source) * dim)
    memory = layers * source * 2 * dim * dim  # once, or by the plain path at each step
    memory *= steps if row.means == PLAIN else 1
    rounding = target * latent * vocabulary
    assert found == 2 * (encoder + steps * step + memory + rounding)


def test_a_rate_is_the_best_of_what_was_seen(monkeypatch):
    times = iter([1.0, 0.5, 2.0, 0.25, 1.0, 1.0, 1.0, 1.0])
    monkeypatch.setattr(
        "difformer_plugin.bench.measuring.seconds", lambda call, device: (next(times), None)
    )
    rate = MatrixRate((16, 32), torch.float32, torch.device("cpu"))
    operations = [2 * len(a) * a.shape[1] * b.shape[1] for a, b in rate.pairs]
    assert operations == [2 * 2048**3, 2 * 4096 * 16 * 32]
    rate.measure()
    assert rate.best == max(operations[0] / 0.5, operations[1] / 0.25)
    best = rate.best
    rate.measure()
    assert rate.best == best
