"""The training table: rows train on the same batches in turn, by fairseq's own trainer."""

import tempfile
from argparse import Namespace
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import numpy as np
import torch
from fairseq.logging import metrics
from fairseq.trainer import Trainer

from difformer_plugin.bench import models
from difformer_plugin.bench.measurement import interleave, peak_memory, throughput, timed
from difformer_plugin.bench.training_speedups import (
    DESCRIPTIONS,
    PLAIN,
    TrainingSpeedups,
    only,
    training_with,
)
from difformer_plugin.errors import UserError

OPTIMISER = """
    --optimizer adam --adam-betas (0.9,0.98) --weight-decay 0.01 --lr 5e-4 --clip-norm 1.0
    --dropout 0.3 --num-workers 0
"""


class Row(NamedTuple):
    """How a model is trained.

    Attributes:
        help: its line in the legend of the table.
        model: "diffusion" or "transformer".
        options: of fairseq-train, beyond those of all rows.
        context: makes from a trainer the context in which it trains, which sets the speed-ups.
    """

    help: str
    model: str = "diffusion"
    options: str = ""
    context: Callable[[Trainer], AbstractContextManager] = lambda trainer: nullcontext()


def with_speedups(speedups: TrainingSpeedups) -> Callable[[Trainer], AbstractContextManager]:
    """A Row.context in which model and criterion have these speed-ups only."""
    return lambda trainer: training_with(speedups, trainer.model, trainer.criterion)


def each_alone(suffix: str, options: str, names: Iterable[str]) -> dict[str, Row]:
    """Rows with a single speed-up each."""
    return {
        name + suffix: Row(
            f"plain{suffix}, and {DESCRIPTIONS[name]}",
            options=options,
            context=with_speedups(only(name)),
        )
        for name in names
    }


ROWS = {
    "plain": Row("no speed-ups, float32", context=with_speedups(PLAIN)),
    **each_alone("", "", [name for name in DESCRIPTIONS if name != "single"]),
    "engine": Row("all of these speed-ups, as in fairseq-train"),
    "plain-bf16": Row("plain with --bf16", options="--bf16", context=with_speedups(PLAIN)),
    **each_alone("-bf16", "--bf16", DESCRIPTIONS),
    "engine-bf16": Row("engine with --bf16", options="--bf16"),
    "transformer": Row("fairseq's Transformer of the same size, float32", "transformer"),
    "transformer-bf16": Row("the same with --bf16", "transformer", "--bf16"),
}


def choose_rows(wanted: Sequence[str] | None) -> list[str]:
    """The names of the rows to measure, in the order of ROWS.

    Args:
        wanted: names, or None for all.
    Raises:
        UserError: a row is unknown.
    """
    if unknown := sorted(set(wanted or ()) - set(ROWS)):
        raise UserError(f"--rows: no such row as {', '.join(unknown)}; there are {', '.join(ROWS)}")
    return [name for name in ROWS if not wanted or name in wanted]


class TrainBench:
    """Measures time and memory of training. Rows of the same model and options share a trainer.

    Args:
        args: of `difformer bench train`.
        names: of the rows.
        device: on which the models train.
        threads: of the CPU.
    Attributes:
        numbers: the sentence numbers of each batch.
        tokens: target tokens of each batch, without BOS and EOS.
    """

    def __init__(self, args: Namespace, names: Sequence[str], device: torch.device, threads: int):
        self.args, self.names, self.device, self.threads = args, names, device, threads
        self.folder = tempfile.TemporaryDirectory()  # for what a trainer saves when it fails
        self.trainers = {}
        diffusion = self._build("diffusion", "", None)
        for name in names:
            self._build(ROWS[name].model, ROWS[name].options, diffusion.model)
        self.numbers = choose_batches(diffusion, args.max_tokens, args.updates, args.seed)
        self.tokens = [self._tokens(diffusion, batch) for batch in self.numbers]
        self.samples = {}

    def _build(self, model, options, like):
        key = (model, options)
        if key not in self.trainers:
            sizes = (
                models.diffusion_options(self.args.arch, self.args.model_options)
                if model == "diffusion"
                else f"{models.TRANSFORMER} {models.size_options(like)}"
            )
            cfg, task, built = models.random_model(
                self.args.data,
                self.args.seed,
                *(sizes, OPTIMISER, options, f"--max-tokens {self.args.max_tokens}"),
                *(f"--save-dir {self.folder.name}", "--cpu" * (self.device.type == "cpu")),
            )
            task.load_dataset("train")
            self.trainers[key] = Trainer(cfg, task, built, task.build_criterion(cfg.criterion))
        return self.trainers[key]

    @staticmethod
    def _tokens(trainer, batch):
        dataset, dictionary = trainer.task.dataset("train"), trainer.task.target_dictionary
        frame = torch.tensor([dictionary.bos(), dictionary.eos()])
        return sum(int((~torch.isin(dataset[i]["target"], frame)).sum()) for i in batch)

    def update(self, name: str, b: int) -> Callable[[], None]:
        """A function that makes one update of a row on the b-th batch."""
        row = ROWS[name]
        trainer = self.trainers[row.model, row.options]
        if (row.model, b) not in self.samples:
            dataset = trainer.task.dataset("train")
            self.samples[row.model, b] = dataset.collater([dataset[i] for i in self.numbers[b]])
        sample = self.samples[row.model, b]
        metrics.reset()  # shared by all trainers, whose criteria log different names

        def run():
            with row.context(trainer):
                trainer.train_step([sample])

        return run

    def memory(self, name: str) -> float | None:
        """MiB that an update on the longest sentences needs beyond weights and Adam's averages."""
        sizes = [len(batch) for batch in self.numbers]  # fewest sentences: the longest
        longest, shortest = int(np.argmin(sizes)), int(np.argmax(sizes))
        return peak_memory(
            self.update(name, longest), self.update(name, shortest), self.device, self.threads
        )

    def block(
        self,
        memory: Mapping[str, float | None],
        progress: Callable[[list], Iterable] = iter,
    ) -> list[dict[str, Any]]:
        """Train with all rows in turn.

        Args:
            memory: MiB by row, see `memory`.
            progress: wraps the list of updates.
        Returns:
            a dictionary for each row; ratios are to the first one.
        """
        repetitions, batches = self.args.repetitions, len(self.numbers)
        for name in self.names:
            self.update(name, 0)()  # warm-up
        times = {name: [[] for _ in range(repetitions)] for name in self.names}
        for repetition, b, name in progress(interleave(list(self.names), repetitions, batches)):
            duration, _ = timed(self.update(name, b), self.device)
            times[name][repetition].append(duration)
        sentences, tokens, first = sum(map(len, self.numbers)), sum(self.tokens), self.names[0]
        return [
            {"name": name, "memory_mib": memory.get(name)}
            | throughput(times[name], times[first], sentences, tokens)
            for name in self.names
        ]


def choose_batches(trainer: Trainer, max_tokens: int, updates: int, seed: int) -> list[list[int]]:
    """Draw batches of an epoch of fairseq-train without replacement.

    Args:
        max_tokens: in a batch.
        updates: number of batches.
    Returns:
        the sentence numbers of each batch.
    """
    task, dataset = trainer.task, trainer.task.dataset("train")
    indices = task.filter_indices_by_size(
        dataset.ordered_indices(), dataset, trainer.model.max_positions(), True
    )
    indices = indices[dataset.num_tokens_vec(indices) <= max_tokens]
    batches = dataset.batch_by_size(indices, max_tokens=max_tokens, required_batch_size_multiple=1)
    order = np.random.default_rng(seed).permutation(len(batches))[:updates]
    return [[int(i) for i in batches[b]] for b in order]
