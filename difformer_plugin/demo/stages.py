"""Stages of the demonstration: run one after the other, and skipped where they are done."""

import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from difformer_plugin.demo.progress import Progress
from difformer_plugin.errors import UserError
from difformer_plugin.storage.files import atomic_text, read_object

RESULT = re.compile(rb"^[STHDPE]-\d")  # result lines of fairseq-generate, which are not shown
TOTAL = 4  # stages of the demonstration
REMEDY = "remove it, and the stages run again"
TAIL = 15  # lines of a failed stage's log that are repeated in the error


class StageRecord(NamedTuple):
    """A finished stage: its command (empty if it is not a command), and how long it took."""

    name: str
    command: Sequence[str]
    seconds: float
    skipped: bool  # done in an earlier run


class Stages:
    """Runs stages in order. A stage is skipped if it is done and no stage before it has changed.

    Args:
        out: folder of the demonstration. `out/stages.json` holds the key of each finished stage,
            which says what was run, and how long it took.
        total: number of stages, for the heading of each.
    Attributes:
        done: the stages of this run, in order.
    """

    def __init__(self, out: Path, total: int = TOTAL) -> None:
        self.out, self.total = out, total
        self.done: list[StageRecord] = []
        self.file = out / "stages.json"
        self.finished = read_object(self.file, REMEDY) if self.file.exists() else {}

    def log(self, name: str) -> Path:
        """Path of a stage's log."""
        return self.out / f"{name}.log"

    def is_done(self, name: str, key: Any) -> bool:
        """Whether an earlier run finished the stage with this key."""
        return name in self.finished and self.finished[name]["key"] == key

    def corpus(self, key: Any, function: Callable[[], None]) -> None:
        """Run the first stage, which makes the corpus.

        Raises:
            UserError: an earlier run used a different corpus.
        """
        if "corpus" in self.finished and not self.is_done("corpus", key):
            raise UserError(
                f"{self.out} holds a run on another corpus: give another --out (with make: "
                "OUT=FOLDER), or remove it"
            )
        self.run("corpus", key, function)

    def command(self, command: list[str]) -> None:
        """Run a fairseq command as a stage."""
        self.run(command[0], command, lambda: execute(command, self.log(command[0])), command)

    def run(
        self, name: str, key: Any, function: Callable[[], Any], command: Sequence[str] = ()
    ) -> None:
        """Call `function` and record it, unless an earlier run did so with the same key.

        Args:
            key: what the result depends on; must survive JSON.
        """
        skipped = self.is_done(name, key)
        if not skipped:
            # Later stages used the result that is about to be replaced.
            names = list(self.finished)
            for later in names[names.index(name) :] if name in names else []:
                del self.finished[later]
            self._save()
            print(f"\nStep {len(self.done) + 1} of {self.total}: {name}", flush=True)
            started = time.monotonic()
            function()
            seconds = round(time.monotonic() - started, 1)
            self.finished[name] = {"key": key, "seconds": seconds}
            self._save()
        seconds = self.finished[name]["seconds"]
        self.done.append(StageRecord(name, command, seconds, skipped))

    def _save(self) -> None:
        with atomic_text(self.file) as handle:
            json.dump(self.finished, handle, indent=1)


def execute(command: Sequence[str], log: Path) -> None:
    """Run a command of this Python's environment; show its output and write it to `log`.

    What it prints is shown with the time that is left, as far as it can be told.

    Raises:
        UserError: the command does not exist, or fails; the message ends with the end of the log.
    """
    program = Path(sys.executable).parent / command[0]
    if not program.exists():
        raise UserError(f"{program} is missing: install fairseq-fixed into this environment")
    print(f"\n$ {shlex.join(command)}", flush=True)
    environment = {
        **os.environ,
        "PYTHONUNBUFFERED": "1",  # keeps log lines and results in order
        "PYTHONUTF8": "1",
        "PYTHONWARNINGS": "ignore::UserWarning",  # from libraries, about calls inside fairseq
    }
    with (
        open(log, "wb") as copy,
        subprocess.Popen(
            [program, *command[1:]],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
        ) as process,
    ):
        progress = Progress(command)
        try:
            for line in process.stdout:
                copy.write(line)
                if not RESULT.match(line):
                    text = line.decode("utf-8", "replace")
                    print(text, end="", flush=True)
                    if note := progress.note(text):
                        print(f"-- {note}", flush=True)
        except BaseException:
            process.terminate()
            raise
    if process.returncode != 0:
        tail = "".join(log.read_text("utf-8", "replace").splitlines(keepends=True)[-TAIL:])
        print(f"\nThe end of {log}:\n{tail}", file=sys.stderr)
        raise UserError(
            f"{command[0]} failed with exit status {process.returncode}; {log} says why"
        )
