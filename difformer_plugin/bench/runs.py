"""The runs of `difformer bench`: what is measured in which order, and what is printed of it."""

import contextlib
import json
from itertools import product

import torch
from tqdm import tqdm

from difformer_plugin.bench import mbr, subjects, table, workload
from difformer_plugin.bench import scaling as growth
from difformer_plugin.bench import systems as decoding
from difformer_plugin.bench import train as training
from difformer_plugin.bench.decode import DecodeBench
from difformer_plugin.storage.files import atomic_text

STEPS, BEAMS = [5], ["1", "21"]


class Report:
    """What a run found, printed as soon as a part of it is there.

    Args:
        path: of --json: a file to write as well, "-" to print that alone, or None.
    """

    def __init__(self, path):
        self.path, self.result, self.empty = path, {}, True

    def tell(self, text):
        """Print a part of the table."""
        if self.path != "-":
            tqdm.write(text if self.empty else f"\n{text}")
            self.empty = False

    def close(self):
        """Write the figures."""
        if self.path == "-":
            print(json.dumps(self.result, indent=1))
        elif self.path:
            with atomic_text(self.path) as file:
                json.dump(self.result, file, indent=1)
        return 0


@contextlib.contextmanager
def one_thread(threads):
    """Use no threads at first: processes that are forked for memory could not start their own."""
    threads = threads or torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield threads
    finally:
        torch.set_num_threads(threads)


def device_of(args):
    """The GPU if there is one and it is wanted."""
    return torch.device("cuda" if torch.cuda.is_available() and not args.cpu else "cpu")


def bar(title):
    """A wrapper of a list that shows on a terminal how far it is."""
    return lambda items: tqdm(items, title, leave=False, disable=None)


def machine(device, threads):
    """Where it was measured."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        name = f"CPU ({torch.backends.cpu.get_cpu_capability()}), {threads} threads"
    return {"device": name, "threads": threads, "torch": torch.__version__}


def candidates(bench, texts):
    """(b1, b2) for each of --beams, as the model that is measured can have them."""
    fixed = bench.systems.diffusion.predicts_length
    return [workload.parse_beams(text, fixed) for text in texts]


def decode(args):
    """`difformer bench decode`."""
    report, device = Report(args.json), device_of(args)
    names = decoding.chosen_rows(args.rows, device, args.settings)
    with one_thread(args.threads) as threads:
        bench = DecodeBench(args, names, device, threads)
        beams = candidates(bench, args.beams or BEAMS)
        sizes = args.batch_size or [args.sentences]
        settings = [
            decoding.Setting(k, b, min(size, args.sentences))
            for b, size, k in product(beams, sizes, args.steps or STEPS)
        ]
        for setting in settings:
            for name in bench.rows_of(setting):
                bench.systems.generator(name, setting)  # what cannot be is said before the start
        largest = max(settings, key=lambda s: s.beams[0] * s.beams[1] * s.batch_size)
        limited = decoding.LIMIT in names and bool(bench.engines())
        if limited and device.type == "cuda":
            operations = bench.operations(largest)
        planned = {(s.beams, s.batch_size, name): s for s in settings for name in bench.rows_of(s)}
        memory = {
            key: bench.memory(setting, key[-1])
            for key, setting in bar("memory")(list(planned.items()))
        }
    describe(report, bench, names, machine(device, threads))
    report.result["blocks"] = []
    if limited and device.type == "cpu":  # not before: it takes threads and memory
        operations = bench.operations(largest)
    for setting in settings:
        rates = bench.rates() if limited and setting is largest else {}

        def measure_rates(rates=rates):
            for rate in rates.values():
                rate.measure()

        measure_rates()
        block = bench.block(setting, memory, bar(setting.title), measure_rates)
        report.result["blocks"].append(block)
        report.tell(table.block(setting.title, block["rows"]))
        if rates:
            report.result["limit"] = bench.limit(setting, operations, block["rows"], rates)
    if "limit" in report.result:
        report.tell(table.limit(report.result["limit"]))
    if decoding.MBR in names:
        texts = mbr.texts(bench.systems.diffusion, args.seed)
        report.result["mbr"] = mbr.measure(texts, args.repetitions, device)
        report.tell(table.mbr(report.result["mbr"]))
    return report.close()


def describe(report, bench, names, where):
    """The head of the decoding table: what is measured, on what, and what the words mean."""
    found, args = bench.systems.subjects, bench.args
    lengths = subjects.reference_lengths(bench.systems.diffusion)[bench.numbers].float()
    report.result |= {**where, "subset": args.subset, "sentences": args.sentences}
    report.result["subwords_per_reference"] = float(lengths.mean())
    report.result["models"] = {
        name: {"parameters": subject.parameters, "trained": subject.trained}
        for name, subject in found.items()
    }
    lines = [
        f"{args.sentences} sentences of {args.subset}, {float(lengths.mean()):.1f} subwords a "
        f"reference; {where['device']}, torch {where['torch']}"
    ]
    width = max(map(len, found)) + 2
    for name, subject in found.items():
        parameters = f"{subject.parameters / 1e6:.1f}M parameters"
        lines.append(f"{name + ':':<{width}}{parameters}, {subject.weights}")
    if args.model_options:
        lines.append(f"trained with {args.model_options}")
    explained = {name: row.help for name, row in decoding.ROWS.items()}
    explained |= decoding.YARDSTICKS | decoding.TABLES
    explained[decoding.TUNED] = f"the engine with the options of {args.settings}"
    lines += ["", *(f"{name:<13}{explained[name]}" for name in names)]
    lines += [
        "",
        f"ratio: to the row {names[0]}, in the same repetition; sent./s, tokens/s and ratio are "
        f"medians of {args.repetitions}",
        "p50, p95: of a batch; MiB: beyond the weights at its peak; differ: tokens of all "
        "candidates",
        "unlike the exact path's; chosen: sentences whose best candidate is another one",
    ]
    report.tell("\n".join(lines))


def scaling(args):
    """`difformer bench decode --scaling`."""
    report, device = Report(args.json), device_of(args)
    args.rows = [growth.ROW]
    sizes = args.batch_size or sorted({min(size, args.sentences) for size in growth.BATCHES})
    with one_thread(args.threads) as threads:
        bench = DecodeBench(args, args.rows, device, threads)
        beams = candidates(bench, args.beams or growth.BEAMS)
    describe(report, bench, args.rows, machine(device, threads))
    found = growth.measure(bench, args.steps or growth.STEPS, beams, sizes, bar("scaling"))
    report.result["scaling"] = found
    report.tell(table.scaling(found))
    return report.close()


def train(args):
    """`difformer bench train`."""
    # an optimiser's first step would import it, in each process that is forked for memory
    import torch._dynamo  # noqa: F401

    report, device = Report(args.json), device_of(args)
    names = training.chosen_rows(args.rows)
    with one_thread(args.threads) as threads:
        bench = training.TrainBench(args, names, device, threads)
        memory = {name: bench.memory(name) for name in bar("memory")(names)}
    where, tokens = machine(device, threads), sum(bench.tokens)
    sentences = sum(map(len, bench.numbers))
    report.result |= {**where, "arch": args.arch, "updates": len(bench.numbers)}
    report.result |= {"sentences": sentences, "tokens": tokens}
    lines = [
        f"{len(bench.numbers)} updates of at most {args.max_tokens} tokens: {sentences} sentences, "
        f"{tokens} target subwords; {args.arch}; {where['device']}, torch {where['torch']}",
        "",
        *(f"{name:<18}{training.ROWS[name].help}" for name in names),
        "",
        f"ratio: to the row {names[0]}, in the same repetition; tokens/s and ratio are medians of "
        f"{args.repetitions}; p50, p95: of an",
        "update; MiB: beyond weights and Adam's averages at its peak",
    ]
    report.tell("\n".join(lines))
    report.result["rows"] = bench.block(memory, bar("updates"))
    report.tell(table.block("training", report.result["rows"], table.TRAINING))
    return report.close()
