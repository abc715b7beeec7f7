"""Training warns of options that the model does not read, and of no others."""

import re

import pytest

from difformer_plugin.families.embeddings.objective import DifformerLoss, DifformerLossConfig

UPDATES = {"rescaling_update_interval": 50, "max_dgs": 0.15}


@pytest.fixture
def warnings(task, caplog):
    """A function that gives what a new model says before it is trained."""

    def warnings(model):
        caplog.clear()
        model.prepare_training(task)
        return [text for text in map(str, caplog.messages) if "has no effect" in text]

    return warnings


@pytest.mark.parametrize(
    "options, said",
    [
        ({"max_rescaling_factor": 3.0}, "--max-rescaling-factor has no effect without --resc"),
        ({"min_rescaling_factor": 2.0}, "--min-rescaling-factor has no effect without --resc"),
        ({"rescaling_max_change": 0.3}, "--rescaling-max-change has no effect without --resc"),
        ({"vp_rf": True, "rescaling_factor": "1"}, "--vp-rf has no effect with --rescaling-fact"),
        ({"vp_rf": True, "rescaling_factor": "2"}, None),
        ({"vp_rf": True, "rescaling_factor": "1", **UPDATES}, None),
        ({"max_rescaling_factor": 3.0, "rescaling_max_change": 0.3, **UPDATES}, None),
        ({}, None),
    ],
    ids=str,
)
def test_noise_rescaling(build, warnings, options, said):
    found = warnings(build(**options))
    assert len(found) == (said is not None) and all(text.startswith(said) for text in found)


@pytest.mark.parametrize(
    "options, said",
    [
        ({"process": "uniform", "objective": "d3pm", "neighbours": 5}, "--neighbours .* uniform"),
        ({"objective": "sedd", "diffusion_steps": 50}, "--diffusion-steps .* in continuous time"),
        ({"continuous_time": True, "diffusion_steps": 50}, "--diffusion-steps .* continuous"),
        ({"objective": "d3pm", "diffusion_steps": 50}, None),
        ({"diffusion_steps": 50}, None),
        ({"process": "nearest", "objective": "d3pm", "neighbours": 5}, None),
    ],
    ids=str,
)
def test_discrete_diffusion(build_discrete, warnings, options, said):
    found = warnings(build_discrete(**{"diffusion_steps": 1000} | options))
    assert len(found) == (said is not None)
    assert all(re.match(said, text) for text in found)


def test_a_target_that_grows_has_no_length_predictor(build_discrete, warnings):
    options = {"objective": "flexible", "diffusion_steps": 1000}
    assert warnings(build_discrete(**options)) == []
    (found,) = warnings(build_discrete(**options, pred_length_offset=True))
    assert found.startswith("--pred-length-offset has no effect where the target grows")
    (found,) = warnings(build_discrete(**options | {"diffusion_steps": 50}))
    assert found.startswith("--diffusion-steps has no effect in continuous time")


@pytest.mark.parametrize("factor, warned", [(None, True), (0.5, False)])
def test_labels_that_d3pm_does_not_read(build_discrete, criterion, batch, caplog, factor, warned):
    model = build_discrete(process="uniform", objective="d3pm").eval()
    options = {"auxiliary_loss_factor": factor}
    losses = [criterion(model, label_smoothing=x, **options)(model, batch())[0] for x in (0, 0.3)]
    assert (losses[0] == losses[1]) == warned
    assert ("--label-smoothing has no effect" in caplog.text) == warned


def test_labels_of_a_loss_without_rounding(task, caplog):
    options = {"mse_loss_only": True, "label_smoothing": 0.1}
    DifformerLoss(DifformerLossConfig(**options), task)
    assert "--label-smoothing has no effect with --mse-loss-only" in caplog.text
    caplog.clear()
    DifformerLoss(DifformerLossConfig(label_smoothing=0.1), task)
    assert not caplog.text
