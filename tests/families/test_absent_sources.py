"""Fine-tuning a model for guidance that has never trained without a source."""

import pytest
import torch

from difformer_plugin.errors import UserError

KINDS = ["difformer", "discrete", "joint", "blind"]


@pytest.fixture(params=KINDS)
def models(request, build, build_discrete, build_joint, task, joined_task):
    """A function from --source-dropout to a model of one kind, and its task."""
    if request.param == "difformer":
        return build, task
    if request.param == "discrete":
        return lambda **options: build_discrete(objective="mdlm", **options), task
    blind = request.param == "blind"
    return lambda **options: build_joint(blind_source=blind, **options), joined_task


def test_a_training_takes_weights_without_absent_sources(models):
    build, task = models
    old, new = build(), build(source_dropout=0.1)
    with torch.no_grad():
        for parameter in old.parameters():
            parameter.add_(1)
    new.prepare_training(task)
    new.load_state_dict(old.state_dict())
    loaded = dict(new.named_parameters())
    for name, parameter in old.named_parameters():
        assert torch.equal(loaded.pop(name), parameter)
    ((name, fresh),) = loaded.items()
    assert name.endswith("no_source") and fresh.abs().sum() == 0
    with torch.no_grad():
        fresh.normal_()
    again = build(source_dropout=0.1)
    again.prepare_training(task)
    again.load_state_dict(new.state_dict())  # what was learned is kept
    assert torch.equal(dict(again.named_parameters())[name], fresh)


def test_decoding_does_not(build):
    """Guidance by what was never trained would be noise."""
    with pytest.raises(UserError, match="do not fit this model"):
        build(source_dropout=0.1).load_state_dict(build().state_dict())
