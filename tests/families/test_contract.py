"""Every family implements the contract that decoding, the task, tuning and the bench rely on."""

import pytest
from discrete_kinds import KINDS

from difformer_plugin.decoding.options import SamplerOptions, setting_option
from difformer_plugin.diffusion.sampler import SAMPLERS, settings_of
from difformer_plugin.families import registered  # noqa: F401
from difformer_plugin.families.contract import FAMILIES, Family, is_diffusion_model


@pytest.fixture(params=["embeddings", "joint", *KINDS])
def model(request, build, build_joint, build_discrete):
    others = {"embeddings": build, "joint": build_joint}
    if request.param in others:
        return others[request.param]()
    return build_discrete(**KINDS[request.param])


def test_a_model_has_all_that_the_contract_names(model):
    assert isinstance(model, Family) and is_diffusion_model(model)
    assert type(model) in FAMILIES
    for name in Family.__annotations__:
        assert hasattr(model, name), name
    assert model.title and model.criterion and isinstance(model.reads, frozenset)


def test_other_models_are_none(teacher):
    assert not is_diffusion_model(teacher)


def test_each_sampler_of_a_model_is_registered(model):
    samplers = model.samplers()
    assert samplers and all(kind in SAMPLERS for kind in samplers.values())
    assert all(name == kind.name for name, kind in samplers.items())


def test_each_setting_of_a_sampler_is_an_option():
    options = SamplerOptions()
    for kind in SAMPLERS:
        for field in settings_of(kind):
            assert getattr(options, setting_option(field.name)) == field.default
