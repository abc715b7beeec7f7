"""Every pair of objective and process, as options of a discrete diffusion model."""

import pytest

KINDS = {
    "d3pm uniform": {"objective": "d3pm", "process": "uniform"},
    "d3pm absorbing": {"objective": "d3pm", "process": "absorbing"},
    "d3pm nearest": {"objective": "d3pm", "process": "nearest"},
    "mdlm": {"objective": "mdlm", "process": "absorbing"},
    "mdlm continuous": {"objective": "mdlm", "process": "absorbing", "continuous_time": True},
    "sedd uniform": {"objective": "sedd", "process": "uniform"},
    "sedd absorbing": {"objective": "sedd", "process": "absorbing"},
    "flexible": {"objective": "flexible", "process": "absorbing"},
}
FIXED = {name: options for name, options in KINDS.items() if name != "flexible"}


def samplers(name):
    """The options of decoding that choose each sampler of such a model."""
    options = KINDS[name]
    if options["objective"] == "sedd":
        return [{}, {"decoding_sampler": "tau_leaping"}]
    if name == "mdlm":  # the other models with masks have the same
        confidence = {"decoding_sampler": "confidence"}
        return [{}, confidence, confidence | {"decoding_remasking": True}]
    return [{}]


# Every model with each of its samplers, at some temperature.
DECODINGS = [
    pytest.param(name, options, temperature, id=f"{name} {' '.join(map(str, options.values()))}")
    for name in KINDS
    for options, temperature in zip(samplers(name), (0.7, 0.0, 0.5))
]
