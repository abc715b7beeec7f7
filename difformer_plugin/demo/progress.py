"""How far a fairseq command is, from the lines that it logs."""

import re
import time
from collections.abc import Callable, Sequence

UPDATES = re.compile(r"\bnum_updates[= ](\d+)")  # of fairseq-train
BATCHES = re.compile(r"progress_bar.*?: +(\d+) / (\d+) ")  # of fairseq-generate


class Progress:
    """Estimates the time that is left, from the second line with a count on.

    Args:
        command: of fairseq; the updates of a training are counted up to its --max-update.
        now: gives the time in seconds.
    """

    def __init__(self, command: Sequence[str], now: Callable[[], float] = time.monotonic) -> None:
        words = dict(zip(command, command[1:]))
        self.max_update = int(words.get("--max-update", 0))
        self.now = now
        self._first: tuple[float, float] | None = None  # time and share at the first line

    def share(self, line: str) -> float | None:
        """The share of the work that is done according to a line, None if it does not tell."""
        if self.max_update:
            found = UPDATES.search(line)
            return min(1.0, int(found[1]) / self.max_update) if found else None
        found = BATCHES.search(line)
        return int(found[1]) / int(found[2]) if found else None

    def note(self, line: str) -> str | None:
        """`25 % done, about 6 min left`, after a line that tells more than the lines before."""
        share = self.share(line)
        if share is None:
            return None
        if self._first is None:
            self._first = self.now(), share
            return None
        started, before = self._first
        if not before < share < 1:
            return None
        seconds = (self.now() - started) / (share - before) * (1 - share)
        left = f"{seconds / 60:.0f} min" if seconds >= 90 else f"{max(seconds, 1):.0f} s"
        return f"{share:.0%} done, about {left} left".replace("%", " %")
