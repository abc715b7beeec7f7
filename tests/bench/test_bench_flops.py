import pytest
import torch
from torch import nn
from torch.nn import functional as F

from difformer_plugin.bench.decode_rows import ROWS, Setting
from difformer_plugin.bench.flops import MatrixRate, count
from difformer_plugin.decoding.generator import DiffusionGenerator
from difformer_plugin.decoding.options import DecodingOptions
from difformer_plugin.decoding.speedups import PLAIN
from difformer_plugin.families.tokens.config import DiscreteDiffusionConfig
from difformer_plugin.families.tokens.model import DiscreteDiffusion


def test_a_linear_layer_takes_two_operations_per_weight_and_row():
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
def test_decoding_takes_the_operations_of_its_layers(build, task, sentences, name):
    """The closed form for one sentence, which needs no padding."""
    model, steps, source = build(), 3, 7
    src_tokens = sentences([source - 2])
    row, options = ROWS[name], Setting(steps, (1, 1), 1).options()
    options.force_length = 9
    target = options.force_length + 2
    generator = DiffusionGenerator(task.target_dictionary, options, 1, speedups=row.speedups)
    sample = {"id": torch.tensor([0]), "net_input": {"src_tokens": src_tokens}}
    found = count(lambda: generator.generate([model], sample))

    cfg, vocabulary = model.cfg, len(task.target_dictionary)
    dim, latent = cfg.model_dim, cfg.latent_dim
    layers, ffn = cfg.encoder_layers, cfg.encoder_ffn_embed_dim
    weights = 4 * dim * dim + 2 * dim * ffn
    encoder = source * dim * latent + layers * (source * weights + 2 * source * source * dim)
    layers, ffn = cfg.decoder_layers, cfg.decoder_ffn_embed_dim
    weights = 6 * dim * dim + 2 * dim * ffn  # without keys and values of sources
    step = target * 2 * dim * latent + 2 * dim * 4 * dim
    step += layers * (target * weights + 2 * target * (target + source) * dim)
    memory = layers * source * 2 * dim * dim  # once, or at each step on the plain path
    memory *= steps if row.speedups == PLAIN else 1
    rounding = target * latent * vocabulary
    assert found == 2 * (encoder + steps * step + memory + rounding)


def test_only_stored_entries_of_a_sparse_matrix_count():
    dense, total = torch.rand(30, 7), torch.zeros(20, 7)
    sparse = torch.eye(20, 30).to_sparse_csr()  # 20 entries
    assert count(lambda: sparse @ dense) == 2 * 20 * 7
    assert count(lambda: torch.addmm(total, sparse, dense, out=total)) == 2 * 20 * 7
    assert count(lambda: torch.addmm(total, sparse.to_dense(), dense)) == 2 * 20 * 30 * 7


SIZES = {"model_dim": 16, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
SIZES |= {"latent_dim": 8, "encoder_layers": 1, "decoder_layers": 1}
SIZES |= {"encoder_ffn_embed_dim": 24, "decoder_ffn_embed_dim": 20}
SIZES |= {"max_source_positions": 40, "max_target_positions": 40}


@pytest.mark.parametrize("process, sampler", [("uniform", None), ("absorbing", "confidence")])
def test_logits_are_computed_only_for_predicted_tokens(task, sentences, process, sampler):
    """All tokens if they may change again, otherwise only those that are still masked."""
    cfg = DiscreteDiffusionConfig(objective="d3pm", process=process, diffusion_steps=8, **SIZES)
    model = DiscreteDiffusion.build_model(cfg, task).eval()
    sample = {"id": torch.tensor([0]), "net_input": {"src_tokens": sentences([5])}}
    num_tokens, types, found = 9, len(task.target_dictionary) - 3, {}
    for steps in (1, 4):
        options = DecodingOptions(
            decoding_steps=steps, force_length=num_tokens, decoding_sampler=sampler
        )
        generator = DiffusionGenerator(task.target_dictionary, options, 1)
        found[steps] = count(lambda g=generator: g.generate([model], sample))
    dim, target, source = cfg.model_dim, num_tokens + 2, 7
    step = target * 2 * dim * cfg.latent_dim + 2 * dim * 4 * dim
    step += target * (6 * dim * dim + 2 * dim * cfg.decoder_ffn_embed_dim)
    step += 2 * target * (target + source) * dim
    # log-linear schedule: 1 - alpha = t, so floor(9 t) tokens are masks at t = 1, 3/4, 1/2, 1/4
    predicted = 9 + 6 + 4 + 2 if process == "absorbing" else 4 * 9
    logits = (predicted - num_tokens) * cfg.latent_dim * types
    assert found[4] - found[1] == 2 * (3 * step + logits)


def test_the_rate_is_the_best_measured(monkeypatch):
    times = iter([1.0, 0.5, 2.0, 0.25, 1.0, 1.0, 1.0, 1.0])
    monkeypatch.setattr(
        "difformer_plugin.bench.measurement.timed", lambda call, device: (next(times), None)
    )
    rate = MatrixRate((16, 32), torch.float32, torch.device("cpu"))
    operations = [2 * len(a) * a.shape[1] * b.shape[1] for a, b in rate.pairs]
    assert operations == [2 * 2048**3, 2 * 4096 * 16 * 32]
    rate.measure()
    assert rate.best == max(operations[0] / 0.5, operations[1] / 0.25)
    best = rate.best
    rate.measure()
    assert rate.best == best
