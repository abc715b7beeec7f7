"""The runs of `difformer bench`: what is measured, in which order, and the tables shown of it."""

import contextlib
import os
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import Any

import torch
from tqdm import tqdm

from difformer_plugin.bench import (
    against,
    decode_rows,
    lines,
    mbr,
    scaling,
    table,
    train,
    workload,
)
from difformer_plugin.bench.decode import DecodeBench, Progress
from difformer_plugin.decoding.options import DecodingOptions
from difformer_plugin.decoding.settings import read_settings
from difformer_plugin.errors import UserError

STEPS, BEAMS = [5], ["1", "21"]

Show = Callable[[str], None]  # shows a part of the tables as soon as it is there


@contextlib.contextmanager
def one_thread(threads: int | None) -> Iterator[int]:
    """Use a single thread in the context, and the given number after it.

    Processes that are forked to measure memory could not start threads if this one had used some.

    Args:
        threads: None for torch's default.
    Yields:
        the number of threads to use later.
    """
    threads = threads or torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield threads
    finally:
        torch.set_num_threads(threads)


def device_of(args: Namespace) -> torch.device:
    """The GPU, if there is one and --cpu was not given."""
    return torch.device("cuda" if torch.cuda.is_available() and not args.cpu else "cpu")


def progress_bar(title: str) -> Progress:
    """A wrapper of a list that shows a progress bar on a terminal."""
    return lambda items: tqdm(items, title, leave=False, disable=None)


def machine(device: torch.device, threads: int) -> dict[str, Any]:
    """The device and the version of torch, for the head of the table."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        name = f"CPU ({torch.backends.cpu.get_cpu_capability()}), {threads} threads"
    return {"device": name, "threads": threads, "torch": torch.__version__}


def parse_beams(bench: DecodeBench, texts: Sequence[str]) -> list[tuple[int, int]]:
    """(b1, b2) for each value of --beams."""
    tries_lengths = bench.systems.diffusion.model.tries_lengths
    return [workload.parse_beams(text, tries_lengths) for text in texts]


def decode(args: Namespace, show: Show) -> dict[str, Any]:
    """Measure decoding.

    Args:
        args: of `difformer bench decode`.
    Returns:
        all figures.
    """
    device = device_of(args)
    names = decode_rows.choose_rows(args, device)
    with one_thread(args.threads) as threads:
        bench = DecodeBench(args, names, device, threads)
        beams = parse_beams(bench, args.beams or BEAMS)
        sizes = args.batch_size or [args.sentences]
        settings = [
            decode_rows.Setting(k, b, min(size, args.sentences))
            for b, size, k in product(beams, sizes, args.steps or STEPS)
        ]
        for setting in settings:
            for name in bench.rows_of(setting):
                bench.systems.generator(name, setting)  # refuse impossible options early
        largest = max(settings, key=lambda s: s.beams[0] * s.beams[1] * s.batch_size)
        limited = decode_rows.LIMIT in names and bool(bench.engine_rows())
        if limited and device.type == "cuda":
            operations = bench.operations(largest)
        planned = {(s.beams, s.batch_size, name): s for s in settings for name in bench.rows_of(s)}
        memory = {
            key: bench.memory(setting, key[-1])
            for key, setting in progress_bar("memory")(list(planned.items()))
        }
    result = _describe(bench, names, machine(device, threads), show)
    result["blocks"] = []
    if limited and device.type == "cpu":  # not earlier, since it uses threads and memory
        operations = bench.operations(largest)
    for setting in settings:
        rates = bench.rates() if limited and setting is largest else {}

        def measure_rates(rates=rates):
            for rate in rates.values():
                rate.measure()

        measure_rates()
        block = bench.block(setting, memory, progress_bar(setting.title), measure_rates)
        result["blocks"].append(block)
        show(table.block(setting.title, block["rows"]))
        if rates:
            result["limit"] = bench.limit(setting, operations, block["rows"], rates)
    if "limit" in result:
        show(table.limit(result["limit"]))
    if decode_rows.MBR in names:
        candidates = mbr.synthetic_candidates(bench.systems.diffusion, args.seed)
        result["mbr"] = mbr.measure(candidates, args.repetitions, device)
        show(table.mbr(result["mbr"]))
    if decode_rows.LINES in names:
        result["lines"] = _lines(args, bench, settings)
        show(table.lines(result["lines"]))
    return result


def _lines(
    args: Namespace, bench: DecodeBench, settings: Sequence[decode_rows.Setting]
) -> list[dict[str, Any]]:
    """The rows of `lines.measure`, for each K and number of candidates, and for --settings."""
    sources = bench.systems.diffusion.source_texts(bench.numbers)
    rows = {
        f"K = {s.steps}, b = {s.beams[0]} x {s.beams[1]}": s.options() for s in settings
    }  # the batch size does not matter
    if args.settings:
        rows[decode_rows.TUNED] = DecodingOptions(**read_settings(args.settings))
    measured = progress_bar("lines")(list(rows.items()))
    return [lines.measure(args, name, options, sources) for name, options in measured]


def decode_against(args: Namespace, show: Show) -> dict[str, Any]:
    """Time commands of other implementations beside this plug-in's fairseq-generate.

    Args:
        args: of `difformer bench decode --against`.
    Returns:
        all figures.
    Raises:
        UserError: an option is missing or has no meaning here, or a command fails.
    """
    if not args.path:
        raise UserError("--against compares a checkpoint: give its --path")
    if args.rows:
        raise UserError("--rows does not go with --against, whose commands are the rows")
    against.parse_commands(args.against)
    cores = set(sorted(os.sched_getaffinity(0))[: args.threads or 1])
    where = machine(device_of(args), len(cores))
    show(f"{where['device']}, torch {where['torch']}\n\n{against.LEGEND}")
    result: dict[str, Any] = {**where, "commands": args.against, "blocks": []}
    beams = [workload.parse_beams(text) for text in args.beams or BEAMS]
    for b, size, k in product(beams, args.batch_size or [1], args.steps or STEPS):
        setting = decode_rows.Setting(k, b, size)
        block = against.measure(args, setting, cores, progress_bar(setting.title))
        result["blocks"].append(block)
        show(table.against(block))
    return result


def _describe(bench, names, where, show):
    """Show the head of the decoding table; returns its figures."""
    args, systems = bench.args, bench.systems
    length = float(systems.diffusion.reference_lengths()[bench.numbers].float().mean())
    head = [
        f"{args.sentences} sentences of {args.subset}, {length:.1f} subwords per reference; "
        f"{where['device']}, torch {where['torch']}"
    ]
    width = max(map(len, systems.subjects)) + 2
    for name, subject in systems.subjects.items():
        parameters = f"{subject.parameters / 1e6:.1f}M parameters"
        head.append(f"{name + ':':<{width}}{parameters}, {subject.weights}")
    if args.model_options:
        head.append(f"model options: {args.model_options}")
    legend = decode_rows.legend(args.settings)
    head += ["", *(f"{name:<13}{legend[name]}" for name in names)]
    head += [
        "",
        f"ratio: speed relative to the row {names[0]} in the same repetition; sent./s, tokens/s",
        f"and ratio are medians of {args.repetitions}; p50, p95: of a batch; MiB: peak memory "
        "beyond the weights;",
        "differ: tokens of all candidates that differ from the exact path's; chosen: sentences",
        "with another best candidate",
    ]
    show("\n".join(head))
    return {
        **where,
        "subset": args.subset,
        "sentences": args.sentences,
        "subwords_per_reference": length,
        "models": {
            name: {"parameters": subject.parameters, "trained": subject.trained}
            for name, subject in systems.subjects.items()
        },
    }


def decode_scaling(args: Namespace, show: Show) -> dict[str, Any]:
    """Measure how the cost of decoding grows.

    Args:
        args: of `difformer bench decode --scaling`.
    Returns:
        all figures.
    """
    device, names = device_of(args), [scaling.ROW]
    sizes = args.batch_size or sorted({min(size, args.sentences) for size in scaling.BATCH_SIZES})
    with one_thread(args.threads) as threads:
        bench = DecodeBench(args, names, device, threads)
        beams = parse_beams(bench, args.beams or scaling.BEAMS)
    result = _describe(bench, names, machine(device, threads), show)
    steps = args.steps or scaling.STEPS
    result["scaling"] = scaling.measure(bench, steps, beams, sizes, progress_bar("scaling"))
    show(table.scaling(result["scaling"]))
    return result


def train_rows(args: Namespace, show: Show) -> dict[str, Any]:
    """Measure training.

    Args:
        args: of `difformer bench train`.
    Returns:
        all figures.
    """
    # An optimiser imports it at its first step. Import it here instead, or it would count as
    # memory of every process that is forked.
    import torch._dynamo  # noqa: F401

    device = device_of(args)
    names = train.choose_rows(args.rows)
    with one_thread(args.threads) as threads:
        bench = train.TrainBench(args, names, device, threads)
        memory = {name: bench.memory(name) for name in progress_bar("memory")(names)}
    where, tokens = machine(device, threads), sum(bench.tokens)
    sentences, updates = sum(map(len, bench.numbers)), len(bench.numbers)
    head = [
        f"{updates} updates of at most {args.max_tokens} tokens: {sentences} sentences, "
        f"{tokens} target subwords; {args.arch}; {where['device']}, torch {where['torch']}",
        "",
        *(f"{name:<18}{train.ROWS[name].help}" for name in names),
        "",
        f"ratio: speed relative to the row {names[0]} in the same repetition; tokens/s and ratio",
        f"are medians of {args.repetitions}; p50, p95: of an update; MiB: peak memory beyond "
        "weights and Adam's averages",
    ]
    show("\n".join(head))
    rows = bench.block(memory, progress_bar("updates"))
    show(table.block("training", rows, table.TRAINING_KEYS))
    return {
        **where,
        "arch": args.arch,
        "updates": updates,
        "sentences": sentences,
        "tokens": tokens,
        "rows": rows,
    }
