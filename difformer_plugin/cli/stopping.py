"""How commands end when they are stopped: by Ctrl-C, or by `kill`."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Terminated(KeyboardInterrupt):
    """`kill` has stopped this process, which ends as after Ctrl-C and stops what it started."""


def exit_status(stop: KeyboardInterrupt) -> int:
    """The exit status of a stopped command, as shells report it."""
    number = signal.SIGTERM if isinstance(stop, Terminated) else signal.SIGINT
    return 128 + number


@contextmanager
def terminable() -> Iterator[None]:
    """Within the block SIGTERM raises Terminated in this process; its forks end at once."""
    owner = os.getpid()

    def stop(*unused: Any) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a second one ends it anyhow
        if os.getpid() != owner:
            os.kill(os.getpid(), signal.SIGTERM)
        raise Terminated

    try:
        before = signal.signal(signal.SIGTERM, stop)
    except ValueError:  # not the main thread, which has all signals
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
