"""Compare our numbers with those recorded from the authors' implementation.

A reference folder holds

- `checkpoint.pt`, of the authors' implementation;
- `settings.json`, the options that matter, which complete those of the checkpoint;
- `data-bin`, for the dictionaries;
- `expected.npz`, the arrays of one batch: its inputs, with all noise that was drawn, and what the
  authors' implementation computed, from the embeddings to a whole reverse process.
"""

from collections.abc import Mapping
from dataclasses import replace
from os import PathLike
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import torch
from fairseq.data import Dictionary

from difformer_plugin.decoding.candidates import length_beam
from difformer_plugin.decoding.loop import predictor, reverse_process
from difformer_plugin.decoding.sampling import build_sampler
from difformer_plugin.errors import UserError
from difformer_plugin.families.embeddings.base import DiffusionOutput
from difformer_plugin.families.embeddings.model import Difformer
from difformer_plugin.families.embeddings.objective import DifformerLoss
from difformer_plugin.interop.conversion import convert_options, convert_weights, load_original
from difformer_plugin.networks.layout import Layout
from difformer_plugin.storage.files import read_object
from difformer_plugin.tasks.diffusion_translation import DiffusionTranslationConfig

FILES = ("checkpoint.pt", "settings.json", "expected.npz", "data-bin")


Arrays = dict[str, torch.Tensor]


class Comparison(NamedTuple):
    """One array compared.

    Attributes:
        name: of the array.
        shape: of the recorded array.
        difference: the largest absolute difference; infinite if the shapes differ.
        passed: whether it is within the tolerance.
    """

    name: str
    shape: tuple[int, ...]
    difference: float
    passed: bool


def load_reference(
    folder: str | PathLike,
) -> tuple[Difformer, DifformerLoss, DiffusionTranslationConfig, Arrays]:
    """Read a reference folder.

    Returns:
        the model in evaluation mode, its criterion, the options of decoding, and the recorded
        arrays.
    Raises:
        UserError: a file is missing, or settings contradict the checkpoint.
    """
    folder = Path(folder)
    for name in FILES:
        if not (folder / name).exists():
            raise UserError(f"{folder / name}: missing from this reference folder")
    args, state = load_original(folder / "checkpoint.pt")
    settings = read_object(folder / "settings.json", "copy the reference folder again")
    for name, value in settings.items():
        if getattr(args, name, value) not in (value, None):
            raise UserError(
                f"{folder}: settings.json has {name} {value}, checkpoint.pt {getattr(args, name)}"
            )
        setattr(args, name, value)
    options = convert_options(args)
    task = SimpleNamespace(
        source_dictionary=Dictionary.load(
            str(folder / "data-bin" / f"dict.{args.source_lang}.txt")
        ),
        target_dictionary=Dictionary.load(
            str(folder / "data-bin" / f"dict.{args.target_lang}.txt")
        ),
    )
    model = Difformer.build_model(options.model, task)
    model.load_state_dict(convert_weights(state, options.model), strict=True)
    with np.load(folder / "expected.npz", allow_pickle=False) as arrays:
        expected = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    return model.eval(), DifformerLoss(options.criterion, task), options.task, expected


@torch.no_grad()
def recompute(
    model: Difformer,
    criterion: DifformerLoss,
    options: DiffusionTranslationConfig,
    expected: Arrays,
) -> Arrays:
    """Compute every recorded array that is not an input, under its recorded name.

    Args:
        options: of decoding.
        expected: the recorded arrays, of which only the inputs are used.
    """
    denoiser, target = model.denoiser, expected["target"]
    mask = target.ne(denoiser.pad)
    ours = {}

    memory = model.encoder(expected["src_tokens"])
    ours["encoder_out"] = memory.states
    ours["encoder_padding_mask"] = ~memory.mask
    ours["length_logits"] = model.length_predictor(memory)
    ours["length_target"] = model.length_predictor.classes(mask.sum(1), memory)
    ours["predicted_length"] = length_beam(
        ours["length_logits"], model.length_predictor.lengths(memory), 1, model.max_positions()[1]
    )[:, 0]

    t = expected["t"]
    ours["z_0"] = denoiser.embed(target)
    ours["z_t"] = model.process.q_sample(ours["z_0"], t, expected["noise"])
    zeros = torch.zeros_like(ours["z_0"])
    first = denoiser(ours["z_t"], t, mask, memory, zeros)
    ours["z_0_hat_no_selfcond"] = first
    ours["z_0_hat_selfcond"] = denoiser(ours["z_t"], t, mask, memory, first)
    ours["logits"] = denoiser.output_projection(ours["z_0_hat_selfcond"])
    terms = criterion.terms(
        denoiser.output_projection,
        DiffusionOutput(
            ours["z_0"][mask],
            first[mask],
            target[mask],
            mask.flatten().nonzero()[:, 0],
            ours["length_logits"],
            ours["length_target"],
        ),
    )
    total = sum(terms[name] for name in criterion.loss_terms)
    parts = [terms[name] for name in ("_mse_loss", "anchor", "anchor_nll", "_length_loss")]
    ours["losses"] = torch.stack([*parts, total])
    ours["train_alphas_cumprod"] = torch.tensor(
        [model.process.alpha_bar(k, None) for k in range(len(model.process))], dtype=torch.float64
    )
    return ours | _decode(model, memory, mask, options, expected)


def _decode(model, memory, mask, options, expected):
    """Decode with the recorded noise and the reference lengths, and record every step."""
    steps = len(expected["decode_noise"])
    sampler = build_sampler(model, replace(options, decoding_steps=steps))
    process = sampler.process
    xi, lam, log_variance = process.posterior_coefficients
    seen = {"decode_z": [], "decode_z_0_hat": [], "decode_tokens": []}

    layout, conditions = Layout.dense(mask), model.conditions(memory)
    batch = (*mask.shape, -1)

    def noise(k):
        recorded = expected["decode_z_T"] if k == steps else expected["decode_noise"][k]
        return recorded.flatten(0, 1)

    def observe(k, z, z_0_hat):
        seen["decode_z"].append(z.view(batch))
        seen["decode_z_0_hat"].append(z_0_hat.view(batch))
        # recorded at all positions, padding included
        seen["decode_tokens"].append(model.round(z_0_hat)[0].view(mask.shape))

    def predict(z, time, previous):
        return model.predict(z, time, layout, conditions, previous)

    reverse_process(
        sampler,
        predictor(model, options, predict),
        noise,
        observe=observe,
        layout=lambda: layout,
    )
    return {
        "decode_timestep_map": torch.from_numpy(process.timesteps),
        "decode_alphas_cumprod": torch.from_numpy(process.alphas_cumprod),
        "posterior_mean_coef_z0": torch.from_numpy(xi),
        "posterior_mean_coef_zt": torch.from_numpy(lam),
        "posterior_log_variance_clipped": torch.from_numpy(log_variance),
    } | {name: torch.stack(values) for name, values in seen.items()}


def compare(
    ours: Arrays, expected: Mapping[str, torch.Tensor], tolerance: float = 1e-4
) -> list[Comparison]:
    """Compare our arrays with the recorded ones.

    Args:
        tolerance: the largest difference allowed between floating-point numbers; integers and
            booleans must be equal.
    """
    rows = []
    for name, value in ours.items():
        theirs = expected[name]
        if value.shape != theirs.shape:
            rows.append(Comparison(name, tuple(theirs.shape), float("inf"), False))
            continue
        difference = (value.double() - theirs.double()).abs().max().item()
        allowed = tolerance if theirs.dtype.is_floating_point else 0
        rows.append(Comparison(name, tuple(theirs.shape), difference, difference <= allowed))
    return rows
