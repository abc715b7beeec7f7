"""The insertion model as an architecture of its own, and as an objective of discrete diffusion."""

import pytest
import torch
from omegaconf import OmegaConf
from tiny import SIZES
from token_cases import SOURCES, TARGETS

from difformer_plugin.decoding.options import DecodingOptions
from difformer_plugin.decoding.sampling import build_sampler
from difformer_plugin.diffusion.insertion.sampler import Growing
from difformer_plugin.errors import UserError
from difformer_plugin.families.insertion.config import ARCHITECTURES, InsertionDiffusionConfig
from difformer_plugin.families.insertion.model import InsertionDiffusion
from difformer_plugin.families.insertion.objective import (
    InsertionDiffusionLoss,
    InsertionDiffusionLossConfig,
)


@pytest.fixture
def build_insertion(task):
    """A function that builds a tiny model by its own configuration, in evaluation mode."""

    def build_insertion(**options):
        torch.manual_seed(0)
        known = {name: size for name, size in SIZES.items() if name != "diffusion_steps"}
        cfg = InsertionDiffusionConfig(**(known | options))
        return InsertionDiffusion.build_model(cfg, task).eval()

    return build_insertion


def test_both_ways_to_name_it_build_one_model(build_insertion, build_discrete, sentences):
    own, other = build_insertion(), build_discrete(objective="flexible")
    assert type(other) is InsertionDiffusion
    assert own.criterion == "insertion_diffusion_loss"
    assert other.criterion == "discrete_diffusion_loss"
    assert issubclass(other.objective, own.objective)
    other.load_state_dict(own.state_dict())
    source, target = sentences(SOURCES), sentences(TARGETS, "target")
    with torch.no_grad():
        ours, theirs = (model(src_tokens=source, target=target) for model in (own, other))
    assert ours.x_0.equal(theirs.x_0) and ours.predictions.equal(theirs.predictions)
    assert all(map(torch.equal, ours.gaps, theirs.gaps))


def test_both_criteria_give_one_loss(build_insertion, build_discrete, criterion, batch, task):
    own, other = build_insertion(), build_discrete(objective="flexible")
    other.load_state_dict(own.state_dict())
    cfg = OmegaConf.structured(InsertionDiffusionLossConfig(label_smoothing=0.1))
    ours = InsertionDiffusionLoss(cfg, task)(own, batch())
    theirs = criterion(other, label_smoothing=0.1)(other, batch())
    assert ours[0].equal(theirs[0]) and ours[1] == theirs[1]
    assert set(ours[2]) == set(theirs[2]) >= {"diffusion", "insertions", "bound"}


def test_it_has_one_sampler(build_insertion):
    model = build_insertion()
    assert list(model.samplers().values()) == [Growing] and not model.predicts_length
    sampler = build_sampler(model, DecodingOptions(decoding_steps=4))
    assert sampler.times.tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert sampler.max_length == model.max_positions()[1]


@pytest.mark.parametrize(
    "options, said",
    [
        ({"self_cond": True}, "--self-cond cannot go with"),
        ({"noise_schedule": "sqrt"}, "--noise-schedule .*cosine"),
        ({"latent_dim": 1}, "--latent-dim"),
    ],
)
def test_impossible_configurations(build_insertion, options, said):
    with pytest.raises(UserError, match=said) as error:
        build_insertion(**options)
    assert "\n" not in str(error.value)


def test_architectures_have_embeddings_as_wide_as_their_states():
    assert {"insertion_diffusion", "insertion_diffusion_base"} <= set(ARCHITECTURES)
    for sizes in ARCHITECTURES.values():
        assert sizes["latent_dim"] == sizes.get("model_dim", InsertionDiffusionConfig().model_dim)
