"""Every pair of objective and process, as options of a discrete diffusion model."""

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
    """The options of decoding by which such a model can draw."""
    options = KINDS[name]
    if options["objective"] == "sedd":
        return [{}, {"decoding_sampler": "tau_leaping"}]
    if name == "mdlm":  # and the other absorbing ones alike
        confidence = {"decoding_sampler": "confidence"}
        return [{}, confidence, confidence | {"decoding_remasking": True}]
    return [{}]
