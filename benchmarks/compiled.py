"""Decoding with and without torch.compile, batch by batch in turn.

    python benchmarks/compiled.py DATA-BIN CHECKPOINT [--sentences N] [--batch-size N] [--steps K]

It prints the seconds of the first pass, which compiles, and then for each repetition the process
times of both and their ratio. The outputs are compared.
"""

import argparse
import time

import torch
from common import batches, load, spread_by_length
from one_line_errors import run_script

from difformer_plugin.decoding.generator import DiffusionGenerator
from difformer_plugin.decoding.options import DecodingOptions


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("data", metavar="DATA-BIN")
    add("checkpoint", metavar="CHECKPOINT")
    add("--sentences", type=int, default=100, help="spread evenly over all lengths")
    add("--batch-size", type=int, default=50)
    add("--steps", type=int, default=5)
    add("--repetitions", type=int, default=3)
    return parser.parse_args()


def main() -> None:
    """Print the times."""
    args = parse_args()
    torch.set_num_threads(1)
    torch._dynamo.config.cache_size_limit = 64  # more shapes than by default
    (model,), task = load(args.data, [args.checkpoint], "test")
    dataset = task.dataset("test")
    numbers = spread_by_length(dataset, args.sentences)
    generator = DiffusionGenerator(
        task.target_dictionary, DecodingOptions(decoding_steps=args.steps), 1
    )
    plain = model.denoiser.denoise
    compiled = torch.compile(plain, dynamic=True)

    def run(denoise):
        model.denoiser.denoise = denoise
        seconds, outputs = 0.0, []
        for batch in batches(dataset, numbers, args.batch_size):
            start = time.process_time()
            found = generator.generate([model], batch)
            seconds += time.process_time() - start
            outputs += [best["tokens"].tolist() for best, *_ in found]
        return seconds, outputs

    start = time.perf_counter()
    run(compiled)
    print(f"first pass: {time.perf_counter() - start:.1f} s")
    for _ in range(args.repetitions):
        (ours, expected), (theirs, outputs) = run(plain), run(compiled)
        same = sum(a == b for a, b in zip(outputs, expected))
        print(
            f"plain {ours:.2f} s, compiled {theirs:.2f} s, ratio {ours / theirs:.2f}, equal {same}"
        )


if __name__ == "__main__":
    run_script(main)
