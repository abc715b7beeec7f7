"""Widen a trained small Difformer to the size of `difformer_iwslt_de_en`, with equal output.

    python benchmarks/widen.py SMALL.pt WIDE.pt

The wide network repeats every hidden unit of the small one, with weights divided so that sums stay
the same, and has additional layers that add nothing to their residual. It gives the small network's
translations at the cost of the wide one, so that speed and BLEU can be measured together without
hours of training. It serves no other purpose.

SMALL.pt has normalisation after the sublayers, sinusoidal positions, latent and model dimension
128, four heads, feed-forward dimension 512 and at most six layers, as in benchmarks/multi30k.md.
"""

import sys
from typing import Any

import torch
from fairseq.modules import SinusoidalPositionalEmbedding

from difformer_plugin import register
from difformer_plugin.checkpoints.loading import load_weights_only
from difformer_plugin.checkpoints.saving import save_atomically
from difformer_plugin.families.embeddings.config import ARCHITECTURES

LAYERS = 6

State = dict[str, torch.Tensor]


def repeat(x: torch.Tensor, times: int, dim: int = 0) -> torch.Tensor:
    """Repeat every element along a dimension."""
    return x.repeat_interleave(times, dim)


def wide(weight: torch.Tensor, out: int, into: int) -> torch.Tensor:
    """A weight matrix for inputs repeated `into` times and outputs repeated `out` times."""
    return repeat(repeat(weight, out), into, 1) / into


def widen_layer(state: State, prefix: str) -> None:
    """Widen a layer in place: four times the width, twice the feed-forward dimension."""
    own = {name[len(prefix) :]: value for name, value in state.items() if name.startswith(prefix)}
    for name, value in own.items():
        if "norm" in name:
            state[prefix + name] = repeat(value, 4)
        elif name.startswith("fc1"):
            state[prefix + name] = wide(value, 2, 4) if value.dim() == 2 else repeat(value, 2)
        elif name.startswith("fc2"):
            state[prefix + name] = wide(value, 4, 2) if value.dim() == 2 else repeat(value, 4)
        else:
            value = wide(value, 4, 4) if value.dim() == 2 else repeat(value, 4)
            # a four times larger head dimension scales attention logits by 4 / sqrt(4)
            state[prefix + name] = value / 2 if "q_proj" in name else value


def add_idle_layers(state: State, side: str, count: int) -> None:
    """Add layers up to LAYERS; the last one takes over the final norm of the last trained one."""
    last = f"{side}.layers.{count - 1}."
    template = {name[len(last) :]: v for name, v in state.items() if name.startswith(last)}
    for i in range(count, LAYERS):
        for name, value in template.items():
            if "norm" in name:
                final = i == LAYERS - 1 and name.startswith("final_layer_norm")
                idle = (
                    torch.ones_like(value) if name.endswith("weight") else torch.zeros_like(value)
                )
                value = value if final else idle
            elif "out_proj" in name or "fc2" in name:
                value = torch.zeros_like(value)
            state[f"{side}.layers.{i}.{name}"] = value.clone()
    if count < LAYERS:
        state[last + "final_layer_norm.weight"] = torch.ones_like(
            template["final_layer_norm.weight"]
        )
        state[last + "final_layer_norm.bias"] = torch.zeros_like(template["final_layer_norm.bias"])


def widen(state: State, cfg: dict[str, Any]) -> None:
    """Widen all weights in place."""
    for side, count in (("encoder", cfg["encoder_layers"]), ("denoiser", cfg["decoder_layers"])):
        for i in range(count):
            widen_layer(state, f"{side}.layers.{i}.")
        add_idle_layers(state, side, count)
        state[f"{side}.project_in_dim.weight"] = repeat(torch.eye(128), 4)
    state["denoiser.project_out_dim.weight"] = repeat(torch.eye(128), 4, 1) / 4
    for side, positions in (("encoder", "source"), ("denoiser", "target")):
        size = cfg[f"max_{positions}_positions"] + 2
        table = SinusoidalPositionalEmbedding.get_embedding(size, 128, 1)
        state[f"{side}.embed_positions.weight"] = repeat(table, 4, 1)
    for name in ("weight", "bias"):
        state[f"denoiser.norm_hidden.{name}"] = repeat(state[f"denoiser.norm_hidden.{name}"], 4)
        for part in ("self_cond_proj.0", "self_cond_proj.2", "embed_time.2"):
            value = state[f"denoiser.{part}.{name}"]
            value = wide(value, 4, 4) if name == "weight" else repeat(value, 4)
            state[f"denoiser.{part}.{name}"] = value
    time = state["denoiser.embed_time.0.weight"]
    spread = torch.zeros(len(time), 512)
    spread[:, ::4] = time  # every fourth frequency of the wide network is one of the small
    state["denoiser.embed_time.0.weight"] = repeat(spread, 4)
    state["denoiser.embed_time.0.bias"] = repeat(state["denoiser.embed_time.0.bias"], 4)
    length = "length_predictor.embed_length.weight"
    state[length] = repeat(state[length], 4, 1) / 4


def main(small: str, out: str) -> None:
    """Widen the checkpoint `small`, and save it as `out`."""
    register()
    checkpoint = load_weights_only(small)
    cfg = checkpoint["cfg"]["model"]
    cfg = cfg if isinstance(cfg, dict) else vars(cfg)
    widen(checkpoint["model"], cfg)
    sizes = ARCHITECTURES["difformer_iwslt_de_en"] | {
        "model_dim": 512,
        "encoder_layers": LAYERS,
        "decoder_layers": LAYERS,
        "encoder_learned_pos": True,
        "decoder_learned_pos": True,
    }
    for name, value in sizes.items():
        cfg[name] = value
    checkpoint.pop("last_optimizer_state", None)
    save_atomically(checkpoint, out)


if __name__ == "__main__":
    main(*sys.argv[1:])
