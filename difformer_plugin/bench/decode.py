"""The decoding table: rows translate the same sentences in turn."""

from argparse import Namespace
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from difformer_plugin.bench import flops, workload
from difformer_plugin.bench.decode_rows import (
    BASELINES,
    ROWS,
    TABLES,
    TUNED,
    Setting,
    Systems,
)
from difformer_plugin.bench.differences import compare
from difformer_plugin.bench.measurement import interleave, peak_memory, throughput, timed
from difformer_plugin.decoding.speedups import ENGINE
from difformer_plugin.networks.precision import PRECISIONS

# Steps of the pass that measures memory: if lengths are fixed, no later step needs more memory
# than the second.
MEMORY_STEPS = 2

Progress = Callable[[list], Iterable]


class DecodeBench:
    """Measures time, memory and output differences of decoding.

    Args:
        args: of `difformer bench decode`.
        names: of the rows.
        device: on which the models decode.
        threads: of the CPU.
    """

    def __init__(self, args: Namespace, names: Sequence[str], device: torch.device, threads: int):
        self.args, self.names, self.device, self.threads = args, names, device, threads
        self.systems = Systems(args, names, device)
        self.sizes = self.systems.diffusion.dataset.src_sizes
        self.numbers = workload.choose_sentences(args.sentences, len(self.sizes), args.seed)

    def rows_of(self, setting: Setting) -> list[str]:
        """The names of the rows to measure in this setting."""
        one = setting.beams == (1, 1)  # nothing to count: there is nothing to choose from
        left_out = {*TABLES, *(["count"] if one else [])}
        return [name for name in self.names if name not in left_out]

    def batches(self, setting: Setting, numbers: np.ndarray | None = None) -> list[np.ndarray]:
        """The sentence numbers of each batch, shortest sources first.

        Args:
            numbers: of the sentences, if not those of the run.
        """
        numbers = self.numbers if numbers is None else numbers
        return workload.in_batches(numbers, self.sizes, setting.batch_size)

    def memory(self, setting: Setting, name: str) -> float | None:
        """MiB that a row needs beyond the weights to decode the longest batch."""
        subject = self.systems.subject(name)
        fixed = self.systems.diffusion.model.predicts_length
        steps = min(setting.steps, MEMORY_STEPS) if fixed else setting.steps
        generator = self.systems.generator(name, setting, steps)
        longest = self.batches(setting)[-1]
        batch, first = subject.batch(longest), subject.batch(longest[:1])
        return peak_memory(
            lambda: subject.translate(batch, generator),
            lambda: subject.translate(first, generator),
            self.device,
            self.threads,
        )

    def time(
        self,
        setting: Setting,
        names: list[str],
        numbers: np.ndarray | None = None,
        progress: Progress = iter,
        after_repetition: Callable[[], None] | None = None,
    ) -> tuple[dict[str, list], dict[str, list]]:
        """Translate with all rows in turn.

        Args:
            numbers: of the sentences, if not those of the run.
            progress: wraps the list of what is to be done.
            after_repetition: called after each repetition.
        Returns:
            for each row its times in seconds, (repetitions, batches), and its output: for each
            sentence its candidates.
        """
        batches = self.batches(setting, numbers)
        generators = {name: self.systems.generator(name, setting) for name in names}
        subjects = {name: self.systems.subject(name) for name in names}

        def translate(name, numbers):
            subject = subjects[name]
            batch = subject.batch(numbers)
            duration, found = timed(lambda: subject.translate(batch, generators[name]), self.device)
            # the task may have sorted the batch by its own source lengths: restore our order
            place = {number: i for i, number in enumerate(batch["id"].tolist())}
            return duration, [found[place[int(number)]] for number in numbers]

        # Warm-up. On a GPU, each shape has its own kernels, and its CUDA graph is recorded at the
        # second call.
        gpu = self.device.type == "cuda"
        for batch in batches * 2 if gpu else [batches[0][:1]]:
            for name in names:
                translate(name, batch)
        times = {name: [[] for _ in range(self.args.repetitions)] for name in names}
        outputs = {name: [] for name in names}
        order = interleave(names, self.args.repetitions, len(batches))
        for i, (repetition, b, name) in enumerate(progress(order)):
            duration, found = translate(name, batches[b])
            times[name][repetition].append(duration)
            if repetition == 0:
                outputs[name] += [
                    [tuple(candidate["tokens"].tolist()) for candidate in candidates]
                    for candidates in found
                ]
            if after_repetition and (i + 1) % (len(names) * len(batches)) == 0:
                after_repetition()
        return times, outputs

    def block(
        self,
        setting: Setting,
        memory: Mapping[tuple, float | None],
        progress: Progress = iter,
        after_repetition: Callable[[], None] | None = None,
    ) -> dict[str, Any]:
        """Measure all rows in one setting.

        Args:
            memory: MiB by (beams, batch size, row name), see `memory`.
            progress: see `time`.
            after_repetition: see `time`.
        Returns:
            a dictionary with the setting and `rows`; ratios are to the first row.
        """
        names = self.rows_of(setting)
        times, outputs = self.time(
            setting, names, progress=progress, after_repetition=after_repetition
        )
        reference = next((name for name in names if name in ROWS and ROWS[name].exact), None)
        rows = []
        for name in names:
            boundaries = self.systems.subject(name).num_boundaries
            # where lengths are found by padding, an output may be EOS alone, without BOS
            tokens = sum(max(len(own[0]) - boundaries, 0) for own in outputs[name])
            row = {"name": name, "exact": name in ROWS and ROWS[name].exact}
            row |= throughput(times[name], times[names[0]], len(self.numbers), tokens)
            row["memory_mib"] = memory.get((setting.beams, setting.batch_size, name))
            if reference and name not in (TUNED, *BASELINES):
                row |= compare(outputs[name], outputs[reference])
            rows.append(row)
        return {"title": setting.title, **setting._asdict(), "rows": rows}

    def rates(self) -> dict[str, flops.MatrixRate]:
        """For each row with all speed-ups, the MatrixRate of its precision."""
        cfg = self.systems.diffusion.model.cfg
        shape = cfg.model_dim, cfg.decoder_ffn_embed_dim
        types = {name: PRECISIONS[ROWS[name].precision or "fp32"] for name in self.engine_rows()}
        return {
            name: flops.MatrixRate(shape, kind, self.device)
            for name, kind in types.items()
            if kind.is_floating_point  # torch has no product of plain int8 matrices to compare with
        }

    def engine_rows(self) -> list[str]:
        """The names of the rows with all speed-ups."""
        return [name for name in self.names if name in ROWS and ROWS[name].speedups == ENGINE]

    def operations(self, setting: Setting) -> int:
        """Operations of the engine on the longest batch.

        On a GPU the batch must not have been decoded before: operations of a CUDA graph that is
        replayed cannot be counted.
        """
        subject = self.systems.diffusion
        batch = subject.batch(self.batches(setting)[-1])
        generator = self.systems.generator(self.engine_rows()[0], setting)
        return flops.count(lambda: subject.translate(batch, generator))

    def limit(
        self,
        setting: Setting,
        operations: int,
        rows: Sequence[Mapping[str, Any]],
        rates: Mapping[str, flops.MatrixRate],
    ) -> dict[str, Any]:
        """How close the engine comes to the rate of matrix products, on the longest batch.

        Args:
            operations: see `operations`.
            rows: of the block of this setting.
            rates: see `rates`, measured in the course of that block.
        Returns:
            a dictionary with a title and `rows`, one for each row with all speed-ups.
        """
        found = []
        for row in rows:
            if row["name"] in rates:
                duration = min(times[-1] for times in row["seconds"])
                rate = rates[row["name"]].best
                found.append(
                    {
                        "name": row["name"],
                        "operations": operations,
                        "seconds": duration,
                        "operations_per_second": operations / duration,
                        "matrix_rate": rate,
                        "share": operations / duration / rate,
                    }
                )
        return {"title": setting.title, "rows": found}
