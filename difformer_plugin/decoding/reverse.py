"""The reverse process, one loop for every family of diffusion."""


def reverse_process(process, predict, noise, shape, early_stopping=0, observe=None):
    """Draw from the prior and step back to a prediction of the uncorrupted target.

    Args:
        process: its `prior(noise)` gives the start; `step(z, prediction, k, noise)` draws the state
            before the k-th of its `len(process)` steps; `timesteps[k]` is that step in training.
        predict: function (z, timestep, previous prediction or None) -> prediction.
        noise: function (step, shape) -> tensor; step is k, and len(process) for the prior.
        shape: of one candidate.
        early_stopping: leave out that many of the last steps.
        observe: called with (k, z, prediction) after each step, z being the state stepped to.
    Returns:
        the last prediction.
    """
    z = process.prior(noise(len(process), shape))
    prediction = None
    for k in reversed(range(early_stopping, len(process))):
        prediction = predict(z, int(process.timesteps[k]), prediction)
        if k > early_stopping or observe is not None:
            z = process.step(z, prediction, k, noise(k, shape))
        if observe is not None:
            observe(k, z, prediction)
    return prediction


def predictor(model, options, memory, mask):
    """The model's prediction as `reverse_process` calls it, with the options that alter it.

    Args:
        model: its `predict(z, timestep, mask, memory, previous)` and `clamp(prediction, mask)`.
        options: DecodingOptions, of which --decoding-fixed-t and --clamping are read.
        memory, mask: of the candidates.
    """

    def predict(z, timestep, previous):
        if options.decoding_fixed_t is not None:
            timestep = options.decoding_fixed_t * model.diffusion_steps
        prediction = model.predict(z, timestep, mask, memory, previous)
        return model.clamp(prediction, mask) if options.clamping else prediction

    return predict
