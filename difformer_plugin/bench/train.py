"""The training table: updates of fairseq's own trainer on the same batches in turn."""

import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import numpy as np
import torch
from fairseq.logging import metrics
from fairseq.trainer import Trainer

from difformer_plugin.bench import subjects
from difformer_plugin.bench.measuring import in_turn, peak_memory, seconds, speeds
from difformer_plugin.errors import UserError
from difformer_plugin.networks.speedups import GIVES, PLAIN, only, training_by

OPTIMISER = """
    --optimizer adam --adam-betas (0.9,0.98) --weight-decay 0.01 --lr 5e-4 --clip-norm 1.0
    --dropout 0.3 --num-workers 0
"""


class Row(NamedTuple):
    """How a model is trained.

    Attributes:
        help: what it is, for the table's legend.
        model: "diffusion" or "transformer".
        options: of fairseq-train, beyond those of all rows.
        means: makes from a trainer the context in which it trains: what is fast about it.
    """

    help: str
    model: str = "diffusion"
    options: str = ""
    means: Callable[[Trainer], AbstractContextManager] = lambda trainer: nullcontext()


def by(means):
    """The context of a trainer whose model and criterion train by some means only."""
    return lambda trainer: training_by(means, trainer.model, trainer.criterion)


def each_alone(suffix, options, names):
    """Rows of the plain path with one of the means."""
    return {
        name + suffix: Row(
            f"plain{suffix}, and {GIVES[name]}", options=options, means=by(only(name))
        )
        for name in names
    }


ROWS = {
    "plain": Row("everything done the simple way, float32", means=by(PLAIN)),
    **each_alone("", "", [name for name in GIVES if name != "single"]),
    "engine": Row("all of these, as fairseq-train does it"),
    "plain-bf16": Row("plain with --bf16", options="--bf16", means=by(PLAIN)),
    **each_alone("-bf16", "--bf16", GIVES),
    "engine-bf16": Row("engine with --bf16", options="--bf16"),
    "transformer": Row("fairseq's Transformer of the same size, float32", "transformer"),
    "transformer-bf16": Row("the same with --bf16", "transformer", "--bf16"),
}


def chosen_rows(wanted):
    """The names of the rows, in their order here; all without a choice."""
    if unknown := sorted(set(wanted or ()) - set(ROWS)):
        raise UserError(f"--rows: no such row as {', '.join(unknown)}; there are {', '.join(ROWS)}")
    return [name for name in ROWS if not wanted or name in wanted]


class TrainBench:
    """All that one run measures. Rows of the same model and options share a trainer.

    Args:
        args: of the command.
        names: of the rows.
        device, threads: on which and with how many it is measured.
    """

    def __init__(self, args, names, device, threads):
        self.args, self.names, self.device, self.threads = args, names, device, threads
        self.folder = tempfile.TemporaryDirectory()  # of what a trainer saves when it fails
        self.trainers = {}
        diffusion = self._build("diffusion", "", None)
        for name in names:
            self._build(ROWS[name].model, ROWS[name].options, diffusion.model)
        self.numbers = chosen_batches(diffusion, args.max_tokens, args.updates, args.seed)
        self.tokens = [self._tokens(diffusion, batch) for batch in self.numbers]
        self.samples = {}

    def _build(self, model, options, like):
        key = (model, options)
        if key not in self.trainers:
            sizes = (
                subjects.training(self.args.arch, self.args.model_options)
                if model == "diffusion"
                else f"{subjects.TRANSFORMER} {subjects.size_of(like)}"
            )
            cfg, task, made = subjects.random_model(
                self.args.data,
                self.args.seed,
                *(sizes, OPTIMISER, options, f"--max-tokens {self.args.max_tokens}"),
                *(f"--save-dir {self.folder.name}", "--cpu" * (self.device.type == "cpu")),
            )
            task.load_dataset("train")
            self.trainers[key] = Trainer(cfg, task, made, task.build_criterion(cfg.criterion))
        return self.trainers[key]

    @staticmethod
    def _tokens(trainer, batch):
        dataset, dictionary = trainer.task.dataset("train"), trainer.task.target_dictionary
        frame = torch.tensor([dictionary.bos(), dictionary.eos()])
        return sum(int((~torch.isin(dataset[i]["target"], frame)).sum()) for i in batch)

    def update(self, name, b):
        """One update of a row on the b-th batch; what trains it, ready to be called."""
        row = ROWS[name]
        trainer = self.trainers[row.model, row.options]
        if (row.model, b) not in self.samples:
            dataset = trainer.task.dataset("train")
            self.samples[row.model, b] = dataset.collater([dataset[i] for i in self.numbers[b]])
        sample = self.samples[row.model, b]
        metrics.reset()  # trainers of one process share them, and criteria log different kinds

        def run():
            with row.means(trainer):
                trainer.train_step([sample])

        return run

    def memory(self, name):
        """MiB that an update on the longest sentences takes beyond weights and Adam's averages."""
        size = [len(batch) for batch in self.numbers]
        longest, shortest = int(np.argmin(size)), int(np.argmax(size))
        return peak_memory(
            self.update(name, longest), self.update(name, shortest), self.device, self.threads
        )

    def block(self, memory, progress=iter):
        """Train in turn: a dictionary for each row, the first being what others are compared with.

        Args:
            memory: MiB by name, see `memory`.
        """
        repetitions, batches = self.args.repetitions, len(self.numbers)
        for name in self.names:
            self.update(name, 0)()
        times = {name: [[] for _ in range(repetitions)] for name in self.names}
        for repetition, b, name in progress(in_turn(self.names, repetitions, batches)):
            taken, _ = seconds(self.update(name, b), self.device)
            times[name][repetition].append(taken)
        sentences, tokens, first = sum(map(len, self.numbers)), sum(self.tokens), self.names[0]
        return [
            {"name": name, "memory_mib": memory.get(name)}
            | speeds(times[name], times[first], sentences, tokens)
            for name in self.names
        ]


def chosen_batches(trainer, max_tokens, updates, seed):
    """Some of the batches of an epoch of fairseq-train, drawn at random.

    Returns:
        a list of lists of sentence numbers.
    """
    task, dataset = trainer.task, trainer.task.dataset("train")
    indices = task.filter_indices_by_size(
        dataset.ordered_indices(), dataset, trainer.model.max_positions(), True
    )
    batches = dataset.batch_by_size(indices, max_tokens=max_tokens, required_batch_size_multiple=1)
    order = np.random.default_rng(seed).permutation(len(batches))[:updates]
    return [[int(i) for i in batches[b]] for b in order]
