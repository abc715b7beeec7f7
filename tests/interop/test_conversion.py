"""Conversion of original options, weights and checkpoints."""

import argparse
from pathlib import Path

import pytest
import torch
from original_model import LIMIT, original_args, random_state

from difformer_plugin.errors import UserError
from difformer_plugin.families.embeddings.model import Difformer
from difformer_plugin.interop.conversion import (
    UNSUPPORTED,
    convert_checkpoint,
    convert_options,
    convert_weights,
    load_original,
)

REFERENCE = Path(__file__).resolve().parents[2] / ".." / "shared" / "reference"


def test_options_are_split_into_model_criterion_and_task():
    args = original_args(
        vp_rf=True,
        sg_length_pred=True,
        length_loss_factor=0.25,
        rounding_loss=True,
        decoding_steps=13,
        decoding_early_stopping=4,
        length_beam_size=3,
        share_all_embeddings=True,
    )
    options = convert_options(args)
    model, criterion, task = options.model, options.criterion, options.task
    assert (model.vp_rf, model.sg_length_pred, model.rescaling_factor) == (True, True, 4.0)
    assert model.share_decoder_input_output_embed  # implied
    assert (criterion.label_smoothing, criterion.length_loss_factor) == (0.1, 0.25)
    assert criterion.rounding_loss and not criterion.mse_loss_only
    assert (task.decoding_steps, task.decoding_early_stopping, task.length_beam_size) == (13, 4, 3)
    assert (task.source_lang, task.target_lang) == ("de", "en")


def test_earlier_names_and_missing_limits():
    args = original_args(noise_factor=7.0, max_source_positions=None, encoder_embed_path="gone.txt")
    del args.rescaling_factor
    model = convert_options(args).model
    assert model.rescaling_factor == 7.0 and model.encoder_embed_path is None
    assert (model.max_source_positions, model.max_target_positions) == (1024, LIMIT)


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_an_unsupported_option_is_named(name):
    used = {"adaptive_softmax_cutoff": "100,200", "encoder_layers_to_keep": "0,1"}.get(name, 0.3)
    with pytest.raises(UserError, match=f"--{name.replace('_', '-')} {used}"):
        convert_options(original_args(**{name: used}))


def test_all_unsupported_options_are_named_at_once():
    with pytest.raises(UserError) as error:
        convert_options(original_args(adaptive_input=True, decoder_layerdrop=0.2))
    assert "--adaptive-input" in str(error.value) and "--decoder-layerdrop" in str(error.value)


def test_impossible_values_are_refused():
    with pytest.raises(UserError, match="--noise-schedule|schedule"):
        convert_options(original_args(noise_schedule="none such"))


def test_an_unknown_weight_is_named(task):
    args = original_args()
    state = random_state(args, task) | {"discriminator.weight": torch.zeros(1)}
    with pytest.raises(UserError, match="discriminator.weight"):
        convert_weights(state, convert_options(args).model)


def test_a_tied_output_projection_may_be_missing(task):
    args = original_args(share_decoder_input_output_embed=True)
    state = random_state(args, task)
    del state["decoder.output_projection.weight"]
    options = convert_options(args)
    model = Difformer.build_model(options.model, task)
    model.load_state_dict(convert_weights(state, options.model), strict=True)
    table = model.denoiser.output_projection.weight
    assert torch.equal(table, state["decoder.embed_tokens.weight"])


def test_a_checkpoint_of_another_kind_is_refused(tmp_path):
    path = tmp_path / "other.pt"
    torch.save({"model": {}, "args": argparse.Namespace(arch="transformer")}, path)
    with pytest.raises(UserError, match="other.pt.*latent_dim"):
        load_original(path)


@pytest.mark.skipif(not REFERENCE.is_dir(), reason="no recorded reference beside the repository")
@pytest.mark.parametrize("name", ["difformer_a", "difformer_c"])
def test_a_converted_checkpoint_has_all_weights_and_names_its_model(name):
    converted = convert_checkpoint(REFERENCE / name / "checkpoint.pt")
    _, state = load_original(REFERENCE / name / "checkpoint.pt")
    counts = [
        sum(t.numel() for name, t in weights.items() if name.endswith(("weight", "bias")))
        for weights in (converted["model"], state)
    ]
    assert counts[0] == counts[1]
    cfg = converted["cfg"]
    assert (cfg["model"]["_name"], cfg["task"]["_name"]) == ("difformer", "diffusion_translation")
    assert cfg["criterion"]["_name"] == "difformer_loss"
    assert converted["last_optimizer_state"] is None
