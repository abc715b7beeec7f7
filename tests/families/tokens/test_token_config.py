"""Configurations of discrete diffusion models that are defined, and those that are refused."""

import pytest

from difformer_plugin.errors import UserError
from difformer_plugin.families.tokens.config import (
    ARCHITECTURES,
    OBJECTIVES,
    DiscreteDiffusionConfig,
    check_config,
)


def test_an_objective_is_defined_for_its_processes_only():
    for objective, kind in OBJECTIVES.items():
        for process in ("uniform", "absorbing", "nearest"):
            cfg = DiscreteDiffusionConfig(objective=objective, process=process)
            if process in kind.processes:
                check_config(cfg)
            else:
                with pytest.raises(UserError, match=f"--objective {objective} is not defined"):
                    check_config(cfg)
    check_config(DiscreteDiffusionConfig())
    cfg = DiscreteDiffusionConfig()
    assert (cfg.process, cfg.objective) == ("absorbing", "mdlm")


@pytest.mark.parametrize(
    "options, said",
    [
        ({"objective": "bert"}, "--objective bert: no such.*mdlm"),
        ({"process": "gaussian"}, "--process gaussian: no such.*uniform"),
        ({"noise_schedule": "sqrt"}, "--noise-schedule .*cosine.*sqrt"),
        ({"continuous_time": True, "objective": "sedd"}, "--continuous-time.*is always"),
        ({"continuous_time": True, "objective": "d3pm"}, "--continuous-time.*cannot be"),
        ({"diffusion_steps": 0}, "--diffusion-steps must be at least 1"),
        ({"neighbours": 0}, "--neighbours must be at least 1"),
        ({"neighbour_embeddings": "x.pt"}, "--neighbour-embeddings does nothing"),
        ({"self_cond": True, "objective": "flexible"}, "--self-cond cannot go with"),
        ({"latent_dim": 1}, "--latent-dim"),
    ],
)
def test_impossible_configurations(build_discrete, options, said):
    with pytest.raises(UserError, match=said) as error:
        build_discrete(**options)
    assert "\n" not in str(error.value)


def test_architectures_have_embeddings_as_wide_as_their_states():
    assert {"discrete_diffusion", "discrete_diffusion_base"} <= set(ARCHITECTURES)
    for sizes in ARCHITECTURES.values():
        assert sizes["latent_dim"] == sizes.get("model_dim", DiscreteDiffusionConfig().model_dim)
        check_config(DiscreteDiffusionConfig(**sizes))
