"""The reverse process: one loop for all families and samplers."""

from collections.abc import Callable
from functools import partial
from itertools import count
from typing import Any

import torch

from difformer_plugin.decoding.given import Infilling
from difformer_plugin.diffusion.sampler import Sampler

# Predicts from a state z, a time in [0, 1] and the previous prediction or None: (N, D).
Predict = Callable[[Any, float, torch.Tensor | None], torch.Tensor]


def reverse_process(
    sampler: Sampler,
    predict: Predict,
    noise: Callable[[int], torch.Tensor],
    early_stopping: int = 0,
    observe: Callable[[int, Any, torch.Tensor], None] | None = None,
    narrow: Callable[[int, Any, torch.Tensor], Any] | None = None,
    layout: Callable[[], Any] = lambda: None,
    arrange: Callable[[Any], Any] | None = None,
    infilling: Infilling | None = None,
) -> Any:
    """Draw from the prior and step back to the uncorrupted target.

    Args:
        predict: the model's prediction.
        noise: function of the step, which is k, or K for the prior.
        early_stopping: E, leave out that many of the last steps.
        observe: called with (k, z, prediction) after each step, z being the state stepped to.
        narrow: called with (k, z, prediction) after each step but the last. It may return an index
            of the tokens that go on, which `predict` and `noise` then have to expect, or None.
        layout: the layout of the tokens at present.
        arrange: for a sampler that grows, a function of the state stepped to -> the state as the
            layout has it from now on. The next prediction then has no previous one.
        infilling: overwrites what is given, in states and predictions.
    Returns:
        what `finish` made, or the empty state that `narrow` has left.
    """
    steps = len(sampler.times)
    z = sampler.prior(partial(noise, steps), layout())
    prediction = None
    for k in reversed(range(early_stopping, steps)):
        if infilling is not None:
            z = infilling.state(z, k)
        previous, prediction = prediction, predict(z, float(sampler.times[k]), prediction)
        if infilling is not None:
            prediction = infilling.prediction(prediction)
        last = k == early_stopping
        if not last or observe is not None:
            before = z
            z = sampler.step(z, prediction, k, partial(noise, k), layout(), previous)
        if last:
            if observe is not None:
                observe(k, z, prediction)
                z = before
            return sampler.finish(z, prediction, k, partial(noise, k), layout())
        if arrange is not None:
            z, prediction = arrange(z), None
        if observe is not None:
            observe(k, z, prediction)
        if narrow is not None and (keep := narrow(k, z, prediction)) is not None:
            z, prediction = z[keep], prediction[keep]
            if len(z) == 0:
                return z
    return z


def predictor(model: Any, options: Any, predict: Predict) -> Predict:
    """A prediction with the options that alter it, for one reverse process.

    Args:
        model: its `refine(prediction, options, calls)` is called, `calls` counting from 0.
        options: DecodingOptions; --decoding-fixed-t is read here.
        predict: the model's prediction.
    """

    calls = count()

    def altered(z: Any, time: float, previous: torch.Tensor | None) -> torch.Tensor:
        if options.decoding_fixed_t is not None:
            time = options.decoding_fixed_t
        return model.refine(predict(z, time, previous), options, next(calls))

    return altered
