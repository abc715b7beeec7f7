"""The reverse process, one loop for every family of diffusion."""

from functools import partial


def reverse_process(
    process,
    predict,
    noise,
    early_stopping=0,
    observe=None,
    narrow=None,
    layout=lambda: None,
    arrange=None,
):
    """Draw from the prior and step back to the uncorrupted target.

    Args:
        process: its `prior(noise, layout)` gives the start; `step(z, prediction, k, noise, layout)`
            draws the state before the k-th of its `len(process)` steps; `timesteps[k]` is that step
            in training; `finish(z, prediction, k, draw, layout)` goes to the end in one step,
            `draw()` being its noise. Where it `grows`, a step may change the number of tokens.
        predict: function (z, timestep, previous prediction or None) -> prediction.
        noise: function of the step, which is k, or len(process) for the prior.
        early_stopping: leave out that many of the last steps.
        observe: called with (k, z, prediction) after each step, z being the state stepped to.
        narrow: called with (k, z, prediction) after each step but the last; may return an index of
            what goes on, which `predict` and `noise` then have to expect, or None for all.
        layout: function without arguments: where the tokens lie by now.
        arrange: for a process that grows, a function of the state stepped to -> the state as the
            layout has it from now on. The next prediction then has no previous one.
    Returns:
        what `finish` made, or the empty state that `narrow` has left.
    """
    z = process.prior(noise(len(process)), layout())
    prediction = None
    for k in reversed(range(early_stopping, len(process))):
        prediction = predict(z, process.timesteps[k].item(), prediction)
        last = k == early_stopping
        if not last or observe is not None:
            before, z = z, process.step(z, prediction, k, noise(k), layout())
        if last:
            if observe is not None:
                observe(k, z, prediction)
                z = before
            return process.finish(z, prediction, k, partial(noise, k), layout())
        if arrange is not None:
            z, prediction = arrange(z), None
        if observe is not None:
            observe(k, z, prediction)
        if narrow is not None and (going_on := narrow(k, z, prediction)) is not None:
            z, prediction = z[going_on], prediction[going_on]
            if len(z) == 0:
                return z
    return z


def predictor(model, options, predict):
    """The model's prediction as `reverse_process` calls it, with the options that alter it.

    Args:
        model: its `clamp(prediction)` and `time_unit`.
        options: DecodingOptions, of which --decoding-fixed-t and --clamping are read.
        predict: function (z, timestep, previous) -> prediction, the model's.
    """

    def altered(z, timestep, previous):
        if options.decoding_fixed_t is not None:
            timestep = options.decoding_fixed_t * model.time_unit
        prediction = predict(z, timestep, previous)
        return model.clamp(prediction) if options.clamping else prediction

    return altered
