"""From options to a sampler: every option is read by somebody, and by whom is told in errors."""

import ast
import inspect
from dataclasses import fields
from pathlib import Path

import pytest

import difformer_plugin
import difformer_plugin.families.registered  # noqa: F401
from difformer_plugin.decoding import sampling
from difformer_plugin.decoding.candidates import LENGTH_OPTIONS
from difformer_plugin.decoding.options import (
    FIXED_LENGTH_OPTIONS,
    SAMPLER_OPTIONS,
    DecodingOptions,
)
from difformer_plugin.decoding.sampling import build_sampler
from difformer_plugin.diffusion.sampler import SAMPLERS, settings_of
from difformer_plugin.errors import UserError
from difformer_plugin.families.contract import FAMILIES

PACKAGE = Path(difformer_plugin.__file__).parent
OPTIONS = {f.name for f in fields(DecodingOptions)} - {"_name"}
# Functions that only say whether values are allowed.
CHECKS = {
    "check_options",
    "check_shortcuts",
    "unread_options",
    "check_reranking",
    "check_guidance",
    "forces_length",
}


def attributes(path):
    """The attributes that a file reads outside of the functions that check options."""
    found, left = set(), [ast.parse(path.read_text("utf-8"))]
    while left:
        node = left.pop()
        if isinstance(node, ast.FunctionDef) and node.name in CHECKS:
            continue
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
            found.add(node.attr)
        left += ast.iter_child_nodes(node)
    return found


def attributes_below(*folders):
    return {
        name
        for folder in folders
        for path in (PACKAGE / folder).rglob("*.py")
        for name in attributes(path)
    }


def settings_of_samplers():
    return {f"decoding_{f.name}" for kind in SAMPLERS for f in settings_of(kind)}


def read_by_families():
    return {name for family in FAMILIES for name in family.reads}


@pytest.mark.parametrize("name", sorted(OPTIONS))
def test_every_option_is_read_by_somebody(name):
    """By decoding or reranking, by a sampler as a setting of its own, or by a family."""
    readers = attributes_below("decoding", "reranking") | settings_of_samplers()
    readers |= read_by_families() | {"decoding_steps"}  # the K of `Family.build_sampler`
    assert name in readers


@pytest.mark.parametrize("name", ["decoding_steps", "decoding_timesteps"])
def test_every_family_reads_the_number_of_steps_and_their_times(name):
    assert all(name in inspect.getsource(kind.build_sampler) for kind in FAMILIES)


def test_families_read_the_options_that_they_name():
    assert read_by_families() <= OPTIONS & attributes_below("families")


def test_conditional_options_are_options():
    assert settings_of_samplers() == SAMPLER_OPTIONS <= OPTIONS
    assert LENGTH_OPTIONS | FIXED_LENGTH_OPTIONS <= OPTIONS
    # They are read by decoding itself, or the check would refuse what nobody ever reads.
    assert attributes_below("decoding") >= LENGTH_OPTIONS | FIXED_LENGTH_OPTIONS


# errors


@pytest.fixture
def models(build, build_discrete):
    return {
        "difformer": build(),
        "mdlm": build_discrete(objective="mdlm"),
        "flexible": build_discrete(objective="flexible"),
    }


@pytest.mark.parametrize(
    "name, options, said",
    [
        ("mdlm", {"clamping": True}, "--clamping .*option of a Difformer"),
        ("flexible", {"decoding_vp_rf": True}, "--decoding-vp-rf .*option of a Difformer"),
        ("mdlm", {"soft_clamping": 1}, "--soft-clamping .*option of a Difformer"),
        ("difformer", {"decoding_temperature": 0.5}, "other models' samplers: confidence.*tweedie"),
        ("difformer", {"decoding_remasking": True}, "--decoding-remasking .*confidence"),
        ("mdlm", {"decoding_remasking": True}, "--decoding-remasking .*confidence"),
        ("flexible", {"race_after": 2, "noise_beam_size": 3}, "--race-after .*fix the length"),
        ("flexible", {"force_length": 2}, "--force-length .*predict the length"),
        ("flexible", {"length_scale": 1.1}, "--length-scale"),
        ("flexible", {"decoding_autoregressive": True}, "--decoding-auto.*fix the length"),
        ("difformer", {"decoding_sampler": "confidence"}, "Difformer: use ancestral"),
        ("difformer", {"decoding_steps": 51}, "--decoding-steps .*50 diffusion steps, not 51"),
        ("difformer", {"decoding_timesteps": "51,9,3,1"}, "1 to the model's 50 steps, not 51"),
        ("mdlm", {"decoding_timesteps": "9,4,3,1"}, "1 to the model's 8 steps, not 9"),
        ("flexible", {"decoding_timesteps": "4,3,2,1"}, r"must lie in \(0, 1\].*not 4"),
        ("mdlm", {"decoding_sampler": "nobody's"}, "nobody's .*use ancestral or confidence"),
    ],
)
def test_what_nobody_reads_is_refused_with_its_readers(models, name, options, said):
    with pytest.raises(UserError, match=said) as error:
        build_sampler(models[name], DecodingOptions(**({"decoding_steps": 4} | options)))
    assert "\n" not in str(error.value)


def test_settings_reach_the_sampler(models):
    options = DecodingOptions(
        decoding_steps=4,
        decoding_sampler="confidence",
        decoding_temperature=0.5,
        decoding_remasking=True,
    )
    own = build_sampler(models["mdlm"], options)
    assert own.temperature == 0.5 and own.remasking and len(own.times) == 4
    assert sampling.settings(type(own), options) == {"temperature": 0.5, "remasking": True}


def test_the_default_sampler_comes_first(models):
    for model in models.values():
        own = build_sampler(model, DecodingOptions(decoding_steps=4))
        assert type(own) is next(iter(model.samplers().values()))
