"""The settings that `difformer tune` searches."""

from dataclasses import dataclass, replace
from functools import partial
from itertools import product

import pytest
from discrete_kinds import KINDS
from tuning_cases import REFERENCE, one_sampler_space

from difformer_plugin.decoding.checks import check_options
from difformer_plugin.decoding.options import DecodingOptions
from difformer_plugin.decoding.sampling import check_decoding
from difformer_plugin.diffusion.sampler import setting
from difformer_plugin.errors import UserError
from difformer_plugin.families import registered  # noqa: F401
from difformer_plugin.tuning.space import SamplerChoice, Settings, search_space


@dataclass
class Deterministic:
    """A sampler without settings."""


@dataclass
class Tempered:
    """A sampler with two settings."""

    temperature: float = setting(0.0, "temperature", (0.0, 0.5))
    remasking: bool = setting(False, "remasking")


@pytest.mark.parametrize(
    "options, precisions",
    [
        (replace(REFERENCE, decoding_steps=6), ["fp32", "bf16"]),
        (DecodingOptions(decoding_steps=4, decoding_early_stopping=2), ["bf16"]),
        (DecodingOptions(force_length_ratio=1.0, noise_beam_size=6), ["fp32"]),
    ],
)
def test_space_holds_valid_settings_that_do_not_exceed_the_reference(options, precisions):
    found = one_sampler_space(options, precisions)
    reference = found[0]
    assert reference == Settings.of(options, SamplerChoice("ancestral"))
    assert len(set(found)) == len(found)
    for settings in found:
        check_options(replace(options, **settings.options()))
        assert settings.decoding_steps <= reference.decoding_steps
        assert settings.length_beam_size <= reference.length_beam_size
        assert settings.noise_beam_size <= reference.noise_beam_size
        assert settings.decoding_precision in precisions or settings == reference
    assert len({str(settings) for settings in found}) == len(found)


def test_large_space_is_sampled(monkeypatch):
    monkeypatch.setattr("difformer_plugin.tuning.space.MAX_SETTINGS", 500)
    samplers = {"first": Deterministic, "second": Tempered}
    part, again = (
        search_space(REFERENCE, ["fp32", "bf16"], samplers, lambda options: None) for _ in range(2)
    )
    assert part == again and len(set(part)) == len(part) == 500
    assert part[0] == Settings.of(REFERENCE, part[0].sampler) and part[0].sampler.name == "first"
    for name, values in zip(Settings._fields, zip(*part)):
        assert len(set(values)) > 1, name


def test_settings_of_samplers_are_varied():
    samplers = {"first": Deterministic, "second": Tempered}
    options = DecodingOptions(decoding_steps=1, decoding_sampler="second", decoding_temperature=0.7)
    found = search_space(options, ["fp32"], samplers, lambda options: None)
    expected = {
        "first": {
            "decoding_sampler": "first",
            "decoding_remasking": False,
            "decoding_temperature": 0.0,  # the default, since this sampler does not read it
        }
    }
    for remasking, temperature in product((False, True), (0.0, 0.5, 0.7)):  # one is the user's
        on = ["remasking"] * remasking + [f"temperature {temperature:g}"] * (temperature > 0)
        expected[f"second with {' and '.join(on)}" if on else "second"] = {
            "decoding_sampler": "second",
            "decoding_remasking": remasking,
            "decoding_temperature": temperature,
        }
    assert {str(settings.sampler): settings.sampler.options() for settings in found} == expected
    assert str(found[0].sampler) == "second with temperature 0.7"


def expected_samplers(objective, process):
    """The samplers of a discrete model, its default first, with all switches and temperatures."""
    warm = "temperature 0.5"
    if objective == "sedd":
        kinds = ["tweedie", "tau_leaping"]
    elif process == "absorbing" and objective != "flexible":
        kinds = ["ancestral", "confidence", "confidence with remasking"]
    else:
        kinds = ["ancestral"]
    hot = [f"{kind} {'and' if 'with' in kind else 'with'} {warm}" for kind in kinds]
    return [*kinds, *hot]


@pytest.mark.parametrize("kind", KINDS)
def test_space_of_a_discrete_model_is_what_it_accepts(build_discrete, kind):
    """By asking the model for all settings of a small grid."""
    model = build_discrete(**KINDS[kind])
    grows = not model.predicts_length
    options = DecodingOptions(
        decoding_steps=3, length_beam_size=1 if grows else 2, noise_beam_size=2, bleu_mbr=True
    )
    check = partial(check_decoding, model)
    found = search_space(options, ["fp32"], model.samplers(), check)
    own = expected_samplers(KINDS[kind]["objective"], KINDS[kind]["process"])
    assert str(found[0].sampler) == own[0]
    check(replace(options, decoding_sampler=None))
    assert {str(settings.sampler) for settings in found} == set(own)
    grid = {
        Settings(k, e, b1, b2, *race, "fp32", sampler, timesteps, 0, collapse, scale)
        for k in (1, 2, 3)
        for e in {0, k // 2}
        for b1, b2 in product({1, options.length_beam_size}, (1, 2))
        for race in ((0, 1), (1, 1), (2, 1), (1, 2), (2, 2))
        for sampler in {settings.sampler for settings in found}
        for timesteps in ("uniform", "quadratic", "square_root")
        for collapse, scale in [(False, 1.0), *((True, scale) for scale in (1.0, 1.04, 1.08))]
    }

    def possible(settings):
        every = replace(options, **settings.options())
        try:
            check_options(every)
            check(every)
        except UserError:
            return False
        return 2 * settings.race_keep <= max(settings.num_candidates, 2)

    offered = set(found[1:]) | {found[0]._replace(decoding_precision="fp32")}
    assert offered == {settings for settings in grid if possible(settings)}
    assert any(settings.race_after for settings in offered) == (not grows)


def test_space_of_a_difformer_has_its_samplers(build):
    model = build()
    options = DecodingOptions(decoding_steps=2)
    found = search_space(options, ["fp32"], model.samplers(), partial(check_decoding, model))
    assert found[0].sampler.name == "ancestral"
    assert {settings.sampler.name for settings in found} == set(model.samplers())


def test_reference_must_be_accepted_by_the_model(build_discrete):
    model = build_discrete()
    check = partial(check_decoding, model)
    with pytest.raises(UserError, match="--clamping"):
        search_space(DecodingOptions(clamping=True), ["fp32"], model.samplers(), check)
    with pytest.raises(UserError, match="--decoding-sampler tweedie is not for"):
        options = DecodingOptions(decoding_sampler="tweedie")
        search_space(options, ["fp32"], model.samplers(), check)


def test_denoiser_passes_of_a_race():
    settings = Settings(20, 5, 7, 3, 4, 2, None)
    assert settings.denoiser_passes() == sum(21 if step < 4 else 2 for step in range(15))
    assert settings._replace(race_after=0).denoiser_passes() == 15 * 21
