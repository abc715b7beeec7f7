"""Times in [0, 1] of training and decoding; T steps are the times i / T, i = 0 .. T."""

import numpy as np
import torch

from difformer_plugin.diffusion.parameters import ParameterError
from difformer_plugin.diffusion.timesteps import UNIFORM, chosen_times


def training_times(u: torch.Tensor, steps: int | None) -> tuple[torch.Tensor, torch.Tensor]:
    """The times (s, t) of a batch in training.

    Args:
        u: uniform numbers in [0, 1), (B,).
        steps: T: t is one of 1 / T .. 1, and s is the step before it. None for continuous time, in
            which t is uniform in (0, 1] and s has no meaning.
    Returns:
        s and t, float64 (B,).
    """
    u = u.double()
    if steps is None:
        return 1 - u, 1 - u
    after = (u * steps).floor() + 1
    return (after - 1) / steps, after / steps


def decoding_times(steps: int | None, decoding_steps: int, timesteps: str = UNIFORM) -> np.ndarray:
    """The times of K decoding steps, 0 = t_0 < ... < t_K. t_K is 1, unless a list begins later.

    Args:
        steps: T, whose times are used; None in continuous time.
        decoding_steps: K.
        timesteps: a grid, or a list of K times; see `timesteps.listed_times`.
    Returns:
        float64 array (K + 1,).
    Raises:
        ParameterError: K is not in 1 .. T, or a listed time is not a time of the model.
    """
    if steps is not None and not 1 <= decoding_steps <= steps:
        raise ParameterError(
            "decoding_steps",
            f"must lie between 1 and the model's {steps} diffusion steps",
            decoding_steps,
        )
    if timesteps != UNIFORM:
        return np.append(0.0, chosen_times(timesteps, steps, decoding_steps)) / (steps or 1)
    if steps is None:
        return np.linspace(0, 1, decoding_steps + 1)
    return np.round(np.arange(decoding_steps + 1) * (steps / decoding_steps)) / steps
