"""Models whose outputs depend on every input, for the tests of decoding."""

import pytest
import torch
from discrete_kinds import KINDS


@pytest.fixture
def build_loud(build_discrete):
    """A function that builds discrete diffusion with weights so large that the state counts."""

    def build_loud(name, **options):
        options = {"self_cond": name != "flexible"} | options
        model = build_discrete(pred_length_offset=True, **KINDS[name], **options)
        with torch.no_grad():
            model.denoiser.project_in_dim.weight.mul_(4)
            model.denoiser.output_projection.weight.mul_(3)
            if name == "flexible":  # some three tokens a gap at first
                torch.nn.init.normal_(model.denoiser.insertions.weight, std=0.3)
                model.denoiser.insertions.bias.fill_(1.0)
        return model

    return build_loud
