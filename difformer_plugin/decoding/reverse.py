"""The reverse process, one loop for every family of diffusion."""


def reverse_process(process, predict, noise, early_stopping=0, observe=None, narrow=None):
    """Draw from the prior and step back to a prediction of the uncorrupted target.

    Args:
        process: its `prior(noise)` gives the start; `step(z, prediction, k, noise)` draws the state
            before the k-th of its `len(process)` steps; `timesteps[k]` is that step in training.
        predict: function (z, timestep, previous prediction or None) -> prediction.
        noise: function of the step, which is k, or len(process) for the prior.
        early_stopping: leave out that many of the last steps.
        observe: called with (k, z, prediction) after each step, z being the state stepped to.
        narrow: called with (k, prediction) after each step but the last; may return an index of
            what goes on, which `predict` and `noise` then have to expect, or None for all.
    Returns:
        the last prediction.
    """
    z = process.prior(noise(len(process)))
    prediction = None
    for k in reversed(range(early_stopping, len(process))):
        prediction = predict(z, int(process.timesteps[k]), prediction)
        last = k == early_stopping
        if not last or observe is not None:
            z = process.step(z, prediction, k, noise(k))
        if observe is not None:
            observe(k, z, prediction)
        if narrow is not None and not last and (going_on := narrow(k, prediction)) is not None:
            z, prediction = z[going_on], prediction[going_on]
            if len(z) == 0:
                break
    return prediction


def predictor(model, options, predict):
    """The model's prediction as `reverse_process` calls it, with the options that alter it.

    Args:
        model: its `clamp(prediction)` and `diffusion_steps`.
        options: DecodingOptions, of which --decoding-fixed-t and --clamping are read.
        predict: function (z, timestep, previous) -> prediction, the model's.
    """

    def altered(z, timestep, previous):
        if options.decoding_fixed_t is not None:
            timestep = options.decoding_fixed_t * model.diffusion_steps
        prediction = predict(z, timestep, previous)
        return model.clamp(prediction) if options.clamping else prediction

    return altered
