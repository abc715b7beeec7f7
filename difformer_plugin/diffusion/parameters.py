"""The error for a parameter of diffusion whose value is not possible."""

from typing import Any


class ParameterError(ValueError):
    """A value that a parameter cannot have.

    Callers turn it into a message in the words of their options.

    Args:
        parameter: its name in this package, as `rescaling_factor`.
        requirement: what it must be, as "must be above 0".
        value: the value it was given.
    """

    def __init__(self, parameter: str, requirement: str, value: Any):
        self.parameter, self.requirement, self.value = parameter, requirement, value
        super().__init__(f"{parameter} {requirement}, not {value}")
