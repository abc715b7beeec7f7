"""When the network is called in decoding: listed times, or K times of a named grid.

A time is one of the steps 1 to T of the model, T being noise, or a number in (0, 1] where time is
continuous. A new grid is one function u -> time under `register_grid`, from [0, 1] onto [0, 1] and
rising; its K times are those of u = 1/K, 2/K, ... 1.
"""

import json
from collections.abc import Callable

import numpy as np

from difformer_plugin.diffusion.parameters import ParameterError

UNIFORM = "uniform"  # the default: evenly spread, as each family's paper has it
PARAMETER = "timesteps"

Grid = Callable[[np.ndarray], np.ndarray]

GRIDS: dict[str, Grid] = {}


def register_grid(function: Grid) -> Grid:
    """Decorator: add a grid under its own name."""
    GRIDS[function.__name__] = function
    return function


@register_grid
def quadratic(u: np.ndarray) -> np.ndarray:
    """u^2: most calls near the data (Song et al., 2021, App. D.2)."""
    return u**2


@register_grid
def square_root(u: np.ndarray) -> np.ndarray:
    """sqrt(u): most calls near the noise."""
    return np.sqrt(u)


def grid_names() -> list[str]:
    """The names of all grids, the default first."""
    return [UNIFORM, *GRIDS]


def listed_times(timesteps: str) -> list[float] | None:
    """The times of a list, in the order of the calls: falling.

    Args:
        timesteps: a list, as JSON or with commas alone; or the name of a grid.
    Returns:
        at least one positive number; None for a grid.
    Raises:
        ParameterError: it is neither a grid nor such a list.
    """
    if timesteps in grid_names():
        return None
    text = timesteps.strip()
    try:
        values = json.loads(text if text.startswith("[") else f"[{text}]")
    except (ValueError, RecursionError):
        values = []
    numbers = [value for value in values if type(value) in (int, float)]
    falls = all(after < before for before, after in zip(numbers, numbers[1:]))
    if not numbers or len(numbers) < len(values) or not falls or not numbers[-1] > 0:
        raise ParameterError(
            PARAMETER,
            f"must be {', '.join(grid_names())}, or falling times above 0, as 2000,900,300",
            timesteps,
        )
    return numbers


def check_times(timesteps: str, diffusion_steps: int | None) -> None:
    """Check listed times against a model; see `listed_times`.

    Args:
        diffusion_steps: T, or None where time is continuous.
    Raises:
        ParameterError: one is not a time of the model.
    """
    for time in listed_times(timesteps) or ():
        if diffusion_steps is None and time > 1:
            requirement = "must lie in (0, 1], since the model's time is continuous"
            raise ParameterError(PARAMETER, requirement, f"{time:g}")
        if diffusion_steps is not None and (time > diffusion_steps or time != int(time)):
            requirement = f"must be whole numbers from 1 to the model's {diffusion_steps} steps"
            raise ParameterError(PARAMETER, requirement, f"{time:g}")


def chosen_times(timesteps: str, diffusion_steps: int | None, decoding_steps: int) -> np.ndarray:
    """The K times of a list, or of a grid that is not uniform, rising.

    Args:
        timesteps: see `listed_times`.
        diffusion_steps: T, or None where time is continuous.
        decoding_steps: K, at most T; the length of a list.
    Returns:
        float64 array (K,): distinct whole numbers from 1 to T, or numbers in (0, 1].
    Raises:
        ParameterError: a listed time is not a time of the model.
    """
    check_times(timesteps, diffusion_steps)
    if (listed := listed_times(timesteps)) is not None:
        return np.array(listed[::-1], dtype=np.float64)
    times = GRIDS[timesteps](np.arange(1, decoding_steps + 1) / decoding_steps)
    return times if diffusion_steps is None else distinct(times * diffusion_steps, diffusion_steps)


def distinct(times: np.ndarray, diffusion_steps: int) -> np.ndarray:
    """Rising times (K,), rounded to distinct whole numbers from 1 to T, for K at most T."""
    ranks = np.arange(len(times))
    # each at least one above the one before, and so far below T that the rest has room
    rounded = np.maximum.accumulate(np.round(times).clip(1) - ranks) + ranks
    return np.minimum(rounded, diffusion_steps - ranks[::-1])
