"""What the tests of `difformer distill` share: the command, reading data-bins, and kills."""

import json
import os
import random
import signal
import time

from fairseq.data.data_utils import load_indexed_dataset
from harness import fork, lines, succeed

SEARCH = ["--max-len-a", 0, "--max-len-b", 12]
BATCHES = ["--batch-size", 4]


def distil_with(folder, *options, teacher, data):
    """Run the command on the training set, into a new folder of this one; it must succeed.

    Returns:
        the new folder, and what was printed.
    """
    out = folder / "distilled"
    command = ["distill", data, "--teacher", teacher, "--out", out]
    outcome = succeed(folder, "difformer", *command, *SEARCH, *BATCHES, *options)
    return out, outcome.out


def side(folder, language, split="train"):
    """The tokens of each line of a split."""
    data = load_indexed_dataset(str(folder / f"{split}.de-en.{language}"))
    return [tokens.tolist() for tokens in data]


def failures(folder):
    """Sentence -> cause, outcome, source and output."""
    rows = [line.split("\t") for line in lines(folder / "distilled.failures.tsv")[1:]]
    return {int(row[0]): row[1:] for row in rows}


def contents(folder):
    """The bytes of every file, and the manifest without wall times.

    The receipt, with times of files and the speed of a run, is left out.
    """
    found = {path.name: path.read_bytes() for path in folder.iterdir()}
    found.pop("distilled.receipt.json", None)
    manifest = json.loads(found.pop("distilled.json"))
    manifest["tally"].pop("seconds")
    return found, manifest


def run_with_kills(folder, command, out, kills):
    """Run a command, killed some times at a random moment after some batch was decoded.

    Returns:
        the number of batches that were decoded in all runs.
    """
    calls, chance = folder / "calls", random.Random(kills)
    calls.touch()

    def start():
        argv, environment = list(map(str, command)), {"CALLS": str(calls)}
        streams = folder / "out", folder / "err"
        return fork("counted_distill", "main", argv, *streams, environment=environment)

    for _ in range(kills):
        process, before = start(), calls.stat().st_size
        while calls.stat().st_size < before + 2 and process.is_alive():
            time.sleep(0.001)
        time.sleep(chance.uniform(0, 0.03))
        assert process.is_alive(), "it had finished: use smaller batches"
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert not out.exists()
    process = start()
    process.join()
    assert process.exitcode == 0, (folder / "err").read_text()
    assert not out.with_name(f"{out.name}.unfinished").exists()
    return calls.stat().st_size
