"""benchmarks/widen.py: the wide network computes the same as the small one."""

import importlib.util
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from difformer_plugin.families.embeddings.config import ARCHITECTURES, DifformerConfig
from difformer_plugin.families.embeddings.model import Difformer
from difformer_plugin.networks.layout import Layout

SCRIPT = Path(__file__).parents[2] / "benchmarks/widen.py"
SMALL = {
    "model_dim": 128,
    "latent_dim": 128,
    **{
        f"{side}_{name}": value
        for side in ("encoder", "decoder")
        for name, value in (("ffn_embed_dim", 512), ("attention_heads", 4))
    },
    "encoder_layers": 2,
    "decoder_layers": 6,
    "embed_norm": True,
    "embed_norm_affine": True,
    "self_cond": True,
    "rescale_timesteps": True,
    "max_source_positions": 40,
    "max_target_positions": 30,
}


@pytest.fixture(scope="module")
def widen():
    spec = importlib.util.spec_from_file_location("widen", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.widen


def test_a_widened_network_computes_the_same(widen, task, sentences):
    small = Difformer.build_model(DifformerConfig(**SMALL), task).eval()
    with torch.no_grad():
        for name, weight in small.named_parameters():
            if "norm" in name or name.endswith("bias"):  # they are initialised with ones and zeros
                weight.add_(0.3 * torch.randn_like(weight))
    state = {name: value.clone() for name, value in small.state_dict().items()}
    widen(state, asdict(DifformerConfig(**SMALL)))
    learned = {f"{side}_learned_pos": True for side in ("encoder", "decoder")}
    layers = {f"{side}_layers": 6 for side in ("encoder", "decoder")}
    sizes = {**SMALL, **ARCHITECTURES["difformer_iwslt_de_en"], "model_dim": 512}
    wide = Difformer.build_model(DifformerConfig(**(sizes | learned | layers)), task).eval()
    wide.load_state_dict(state)

    source, mask = sentences([5, 3]), torch.arange(6) < torch.tensor([[6], [4]])
    layout, (z_t, previous) = Layout.dense(mask), torch.randn(2, 12, 128)
    with torch.no_grad():
        memories = [model.encoder(source) for model in (small, wide)]
        logits = [m.length_predictor(memory) for m, memory in zip((small, wide), memories)]
        torch.testing.assert_close(*logits, rtol=1e-3, atol=1e-3)
        for t in (0, 700, 1999):
            ours, theirs = (
                m.predict(z_t, t, layout, m.conditions(memory), previous)[mask.flatten()]
                for m, memory in zip((small, wide), memories)
            )
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)
