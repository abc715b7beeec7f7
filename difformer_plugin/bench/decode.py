"""The decoding table: rows translate the same sentences in turn; time, memory and differences."""

from difformer_plugin.bench import flops, workload
from difformer_plugin.bench.comparing import compare
from difformer_plugin.bench.measuring import in_turn, peak_memory, seconds, speeds
from difformer_plugin.bench.systems import FRAMES, ROWS, TABLES, TUNED, YARDSTICKS, Systems
from difformer_plugin.decoding.candidates import FRAME
from difformer_plugin.decoding.options import PRECISIONS
from difformer_plugin.decoding.speedups import ENGINE

MEMORY_STEPS = 2  # of the reverse process: the second one holds all that any later one does,
# unless outputs grow


class DecodeBench:
    """All that one run measures.

    Args:
        args: of the command.
        names: of the rows.
        device, threads: on which and with how many it is measured.
    """

    def __init__(self, args, names, device, threads):
        self.args, self.names, self.device, self.threads = args, names, device, threads
        self.systems = Systems(args, names, device)
        self.sizes = self.systems.diffusion.dataset.src_sizes
        self.numbers = workload.chosen(args.sentences, len(self.sizes), args.seed)

    def rows_of(self, setting):
        """The rows that differ from each other in this setting."""
        one = setting.beams == (1, 1)
        left_out = {*TABLES, *(["count"] if one else [])}
        return [name for name in self.names if name not in left_out]

    def batches(self, setting, numbers=None):
        """The sentences in batches, as arrays of their numbers."""
        numbers = self.numbers if numbers is None else numbers
        return workload.in_batches(numbers, self.sizes, setting.batch_size)

    def memory(self, setting, name):
        """MiB that decoding the longest batch takes beyond the weights."""
        subject = self.systems.subject(name)
        fixed = self.systems.diffusion.predicts_length
        steps = min(setting.steps, MEMORY_STEPS) if fixed else setting.steps
        generator = self.systems.generator(name, setting, steps)
        longest = self.batches(setting)[-1]
        sample, first = subject.sample(longest), subject.sample(longest[:1])
        return peak_memory(
            lambda: subject.translate(sample, generator),
            lambda: subject.translate(first, generator),
            self.device,
            self.threads,
        )

    def time(self, setting, names, numbers=None, progress=iter, between=None):
        """Translate in turn.

        Args:
            numbers: of the sentences, if not those of the run.
            progress: wraps the list of what is to be done.
            between: called after each repetition.
        Returns:
            for each row its times (repetitions, batches) and its output, a list of sentences.
        """
        batches = self.batches(setting, numbers)
        generators = {name: self.systems.generator(name, setting) for name in names}
        subjects = {name: self.systems.subject(name) for name in names}

        def translate(name, batch):
            subject = subjects[name]
            sample = subject.sample(batch)
            taken, found = seconds(lambda: subject.translate(sample, generators[name]), self.device)
            # a task may sort a batch by its own sources: in the order of the numbers again
            place = {number: i for i, number in enumerate(sample["id"].tolist())}
            return taken, [found[place[int(number)]] for number in batch]

        # on a GPU each shape has kernels of its own, and its graph is recorded the second time
        gpu = self.device.type == "cuda"
        for batch in batches * 2 if gpu else [batches[0][:1]]:
            for name in names:
                translate(name, batch)
        times = {name: [[] for _ in range(self.args.repetitions)] for name in names}
        outputs = {name: [] for name in names}
        order = in_turn(names, self.args.repetitions, len(batches))
        for i, (repetition, b, name) in enumerate(progress(order)):
            taken, found = translate(name, batches[b])
            times[name][repetition].append(taken)
            if repetition == 0:
                outputs[name] += [
                    [tuple(candidate["tokens"].tolist()) for candidate in candidates]
                    for candidates in found
                ]
            if between and (i + 1) % (len(names) * len(batches)) == 0:
                between()
        return times, outputs

    def block(self, setting, memory, progress=iter, between=None):
        """Measure a setting.

        Args:
            memory: MiB by (beams, batch size, name), see `memory`.
        Returns:
            a dictionary, which has one for each row; the first is what others are compared with.
        """
        names = self.rows_of(setting)
        times, outputs = self.time(setting, names, progress=progress, between=between)
        reference = next((name for name in names if name in ROWS and ROWS[name].exact), None)
        rows = []
        for name in names:
            frame = FRAMES.get(name, FRAME)
            tokens = sum(len(candidates[0]) - frame for candidates in outputs[name])
            row = {"name": name, "exact": name in ROWS and ROWS[name].exact}
            row |= speeds(times[name], times[names[0]], len(self.numbers), tokens)
            row["memory_mib"] = memory.get((setting.beams, setting.batch_size, name))
            if reference and name not in (TUNED, *YARDSTICKS):
                row |= compare(outputs[name], outputs[reference])
            rows.append(row)
        return {"title": setting.title, **setting._asdict(), "rows": rows}

    def rates(self):
        """The MatrixRate of each row of the engine."""
        cfg = self.systems.diffusion.model.cfg
        shape = cfg.model_dim, cfg.decoder_ffn_embed_dim
        types = {name: PRECISIONS[ROWS[name].precision or "fp32"] for name in self.engines()}
        return {name: flops.MatrixRate(shape, kind, self.device) for name, kind in types.items()}

    def engines(self):
        """The rows in which the whole engine decodes."""
        return [name for name in self.names if name in ROWS and ROWS[name].means == ENGINE]

    def operations(self, setting):
        """Operations of the engine on the longest batch, which must not have come before.

        On a GPU it is then not yet recorded, and what is replayed could not be counted.
        """
        subject = self.systems.diffusion
        sample = subject.sample(self.batches(setting)[-1])
        generator = self.systems.generator(self.engines()[0], setting)
        return flops.count(lambda: subject.translate(sample, generator))

    def limit(self, setting, operations, rows, rates):
        """How near the engine comes to the rate of matrix products on the longest batch.

        Args:
            operations: see `operations`.
            rows: of the block of this setting.
            rates: see `rates`, measured while it was.
        Returns:
            a dictionary, which has one for each row of the engine.
        """
        found = []
        for row in rows:
            if row["name"] in rates:
                taken, rate = min(times[-1] for times in row["seconds"]), rates[row["name"]].best
                found.append(
                    {
                        "name": row["name"],
                        "operations": operations,
                        "seconds": taken,
                        "operations_per_second": operations / taken,
                        "matrix_rate": rate,
                        "share": operations / taken / rate,
                    }
                )
        return {"title": setting.title, "rows": found}
