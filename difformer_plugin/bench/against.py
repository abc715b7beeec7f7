"""Time commands of other implementations beside this plug-in's fairseq-generate.

Each command translates a small and a large data-bin. The difference between the two times is the
cost of the additional sentences; the start-up (imports, weights, warm-up) cancels out. Commands
take turns and run on the same cores.
"""

import os
import shlex
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Iterable, Sequence
from pathlib import Path
from shutil import copyfile, which
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
from fairseq.data import Dictionary, indexed_dataset

import difformer_plugin
from difformer_plugin.bench.decode_rows import Setting
from difformer_plugin.bench.workload import choose_sentences
from difformer_plugin.data.data_bin import language_pair
from difformer_plugin.data.data_bin_files import check_dataset, stem_of
from difformer_plugin.data.indexed import open_dataset
from difformer_plugin.errors import UserError
from difformer_plugin.evaluation.outputs import parse_outputs

OURS = "ours"
TUNED = "tuned"
SPLIT = "test"  # its name in the data-bins that commands read
FEW = 4  # the large data-bin has four times as many sentences as the small one
FIELDS = ("data", "batch_size", "steps", "lengths", "noises", "seed")
GENERATE = (
    f"{shlex.quote(sys.executable)} -m fairseq_cli.generate {{data}} --task diffusion_translation "
    f"--user-dir {shlex.quote(os.path.dirname(difformer_plugin.__file__))} "
    "--batch-size {batch_size} --seed {seed}"
)
SETTING = "--decoding-steps {steps} --length-beam-size {lengths} --noise-beam-size {noises}"
LEGEND = f"""CPU s, wall s: seconds per sentence, start-up excluded; sent./s: sentences per CPU
second; ratio: CPU s relative to {OURS}; start s: CPU seconds of the start-up; equal: translations
identical to those of {OURS}. All times are medians of the repetitions."""


class Run(NamedTuple):
    """A finished command: its times in seconds, and the best translation by sentence number."""

    cpu: float
    wall: float
    translations: dict[int, str]


def parse_commands(texts: Iterable[str]) -> dict[str, str]:
    """The commands of --against, NAME=COMMAND, by name.

    Raises:
        UserError: a text has another form, a name is taken, or a placeholder is unknown.
    """
    commands: dict[str, str] = {}
    for text in texts:
        name, _, command = text.partition("=")
        if not name.isidentifier() or not command.strip():
            raise UserError(
                f"--against {text!r}: give NAME=COMMAND, such as "
                "'greedy=fairseq-generate {data} --path teacher.pt --beam 1'"
            )
        if name in (OURS, TUNED, *commands):
            raise UserError(f"--against: there is a row {name} already, choose another name")
        try:
            fill(command, dict.fromkeys(FIELDS, "0"))
        except (KeyError, IndexError, ValueError) as error:
            raise UserError(
                f"--against {name}: {command!r} is not a command with placeholders "
                f"{{{'}, {'.join(FIELDS)}}} ({error}); double the braces that are none"
            ) from error
        if "{data}" not in command:
            raise UserError(f"--against {name}: the command must read the data-bin {{data}}")
        commands[name] = command
    return commands


def fill(command: str, values: dict[str, Any]) -> list[str]:
    """Split a command into words, and replace its placeholders by values."""
    return [part.format(**values) for part in shlex.split(command)]


def own_commands(args: Namespace, setting: Setting) -> dict[str, str]:
    """The rows of this plug-in: the setting, and the file of --settings if there is one."""
    base = f"{GENERATE} --path {shlex.quote(str(args.path))}{' --cpu' * args.cpu}"
    rows = {OURS: f"{base} {SETTING}{' --bleu-mbr' * (setting.beams != (1, 1))}"}
    if args.settings:
        rows[TUNED] = f"{base} --decoding-settings {shlex.quote(str(args.settings))}"
    return rows


def write_part(args: Namespace, numbers: np.ndarray, folder: Path) -> Path:
    """Write some sentences of a split as the split `test` of a new data-bin."""
    pair = language_pair(args.data)
    folder.mkdir()
    for language in pair:
        path = Path(args.data) / f"dict.{language}.txt"
        copyfile(path, folder / path.name)
        loaded = open_dataset(str(stem_of(args.data, args.subset, *pair, language)))
        stem = folder / f"{SPLIT}.{'-'.join(pair)}.{language}"
        types = len(Dictionary.load(str(path)))
        builder = indexed_dataset.make_builder(f"{stem}.bin", "mmap", types)
        for number in numbers:
            builder.add_item(loaded[int(number)])
        builder.finalize(f"{stem}.idx")
    return folder


def execute(name: str, command: Sequence[str], cores: set[int]) -> Run:
    """Run a command on some cores, with as many threads, and wait for it.

    The program is searched on PATH, and then in the folder of this Python.

    Raises:
        UserError: it cannot be started, or fails.
    """
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), os.path.dirname(sys.executable)])
    program = which(command[0], path=path) or command[0]
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(len(cores)))
    with TemporaryDirectory() as folder:
        out, err = Path(folder) / "out", Path(folder) / "err"
        start = time.perf_counter()
        try:
            with open(out, "wb") as stdout, open(err, "wb") as stderr:
                process = subprocess.Popen(
                    [program, *command[1:]],
                    stdout=stdout,
                    stderr=stderr,
                    env={**os.environ, **threads},
                    preexec_fn=lambda: os.sched_setaffinity(0, cores),
                )
                try:
                    _, status, usage = os.wait4(process.pid, 0)
                except BaseException:
                    process.kill()
                    raise
        except OSError as error:
            raise UserError(f"{name}: {command[0]}: {error.strerror}") from error
        wall = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        text = out.read_text("utf-8", "replace")
        if process.returncode:
            tail = (err.read_text("utf-8", "replace") or text).strip().splitlines()[-1:]
            raise UserError(
                f"{name} ended with status {process.returncode}: {''.join(tail)} "
                f"({shlex.join(command)})"
            )
        return Run(usage.ru_utime + usage.ru_stime, wall, parse_outputs(text.splitlines()).best)


def figures(name: str, runs: dict[str, list[tuple[Run, Run]]], counts: Sequence[int]) -> dict:
    """The figures of a row.

    Args:
        runs: for each row, (small, large) runs of each repetition.
        counts: the numbers of sentences in the small and the large data-bin.
    """
    extra = counts[1] - counts[0]

    def per_sentence(pairs, kind):
        return np.array([getattr(b, kind) - getattr(a, kind) for a, b in pairs]) / extra

    own, first = runs[name], next(iter(runs.values()))
    cpu, wall = per_sentence(own, "cpu"), per_sentence(own, "wall")
    reference = first[0][1].translations
    return {
        "name": name,
        "cpu_seconds": float(np.median(cpu)),
        "wall_seconds": float(np.median(wall)),
        "ratio": float(np.median(cpu / per_sentence(first, "cpu"))),
        "start_seconds": float(np.median([a.cpu for a, _ in own]) - counts[0] * np.median(cpu)),
        "equal": sum(own[0][1].translations.get(i) == text for i, text in reference.items()),
        "runs": [[[run.cpu, run.wall] for run in pair] for pair in own],
    }


def measure(args: Namespace, setting: Setting, cores: set[int], progress: Any) -> dict[str, Any]:
    """Run all commands in one setting.

    Args:
        args: of `difformer bench decode` with --against.
        progress: wraps the list of what is to be done.
    Returns:
        a dictionary with a title and `rows`; ratios are to the first row, this plug-in's.
    """
    commands = own_commands(args, setting) | parse_commands(args.against)
    few = max(args.sentences // FEW // setting.batch_size, 1) * setting.batch_size
    if args.sentences < 2 * few:
        raise UserError(
            f"--sentences {args.sentences}: comparing commands in batches of "
            f"{setting.batch_size} needs at least {2 * few}"
        )
    pair = language_pair(args.data)
    check_dataset(args.data, args.subset, *pair)
    source = open_dataset(str(stem_of(args.data, args.subset, *pair, pair[0])))
    numbers = choose_sentences(args.sentences, len(source), args.seed)
    runs: dict[str, list] = {name: [] for name in commands}
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        counts = (few, args.sentences)
        data = [write_part(args, numbers[:n], folder / str(n)) for n in counts]
        order = [(turn, name) for turn in range(args.repetitions) for name in commands]
        values = setting.batch_size, setting.steps, *setting.beams, args.seed
        for _, name in progress(order):
            filled = [fill(commands[name], dict(zip(FIELDS, (part, *values)))) for part in data]
            runs[name].append(tuple(execute(name, command, cores) for command in filled))
    rows = [figures(name, runs, counts) for name in commands]
    return {"title": setting.title, "sentences": counts[1] - counts[0], "rows": rows}
