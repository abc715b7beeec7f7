"""How a benchmark script says what is wrong with its input."""

from collections.abc import Callable

from difformer_plugin.errors import UserError


def run_script(main: Callable[[], None]) -> None:
    """Run a script; what is wrong with its input is one line.

    Raises:
        SystemExit: a file is missing or unusable, or an option has an impossible value.
    """
    try:
        main()
    except (UserError, OSError) as error:
        raise SystemExit(f"error: {error}") from error
