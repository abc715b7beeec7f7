"""The one error that a user is meant to see: a line that says what is wrong and what to do."""

from collections.abc import Iterator
from contextlib import contextmanager

from difformer_plugin.diffusion.parameters import ParameterError


class UserError(ValueError):
    """Bad input (a file, an option, a value). Its text names it and the remedy, in one line."""

    def __str__(self) -> str:
        return " ".join(super().__str__().splitlines())  # what a user gave may have line breaks


@contextmanager
def translated(**names: str) -> Iterator[None]:
    """Turn a ParameterError into a UserError in the words of an option. Also a decorator.

    Args:
        names: what the user calls a parameter, as `rescaling_factor="--decoding-rescaling-factor"`.
            Any other parameter is called as the option of its own name: `max_dgs` is `--max-dgs`.
    Raises:
        UserError: the block or function raised a ParameterError.
    """
    try:
        yield
    except ParameterError as error:
        name = names.get(error.parameter, f"--{error.parameter.replace('_', '-')}")
        raise UserError(f"{name} {error.requirement}, not {error.value}") from error
