"""Ancestral decoding of an absorbing model with logits of all masks, and of those alone that move.

    python benchmarks/needed_logits.py DATA-BIN CHECKPOINT [--steps K] [--beams B1 B2]
        [--sentences N] [--batch-size N] [--repetitions N]

Both decode each batch in turn, in one process with one thread. It prints the median ratio of their
process times, and checks that the translations are the same.
"""

import argparse
import statistics
import time
from typing import Any

import torch
from common import batches, load, spread_by_length
from one_line_errors import run_script

from difformer_plugin.decoding.generator import DiffusionGenerator
from difformer_plugin.decoding.options import DecodingOptions
from difformer_plugin.diffusion.categorical.samplers.ancestral import Ancestral


class OfAllMasks(Ancestral):
    """The same sampler, which does not know in advance which masks move."""

    def moving(self, s: torch.Tensor, t: torch.Tensor, u: torch.Tensor) -> None:
        """Any can."""


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("data", metavar="DATA-BIN")
    add("checkpoint", metavar="CHECKPOINT")
    add("--steps", type=int, default=20)
    add("--beams", type=int, nargs=2, default=(1, 1), help="lengths and noises")
    add("--sentences", type=int, default=100, help="spread evenly over all lengths")
    add("--batch-size", type=int, default=50)
    add("--repetitions", type=int, default=5)
    return parser.parse_args()


def main() -> None:
    """Print the ratio."""
    args = parse_args()
    torch.set_num_threads(1)
    (model,), task = load(args.data, [args.checkpoint], "test")
    if Ancestral not in model.samplers().values():
        raise SystemExit(f"{args.checkpoint} is no absorbing model with ancestral sampling")
    dataset = task.dataset("test")
    samples = list(batches(dataset, spread_by_length(dataset, args.sentences), args.batch_size))
    options = DecodingOptions(
        decoding_steps=args.steps, length_beam_size=args.beams[0], noise_beam_size=args.beams[1]
    )
    generator = DiffusionGenerator(task.target_dictionary, options, 1)
    build = model.build_sampler

    def run(kind: type[Ancestral], sample: Any) -> tuple[float, list[list[int]]]:
        model.build_sampler = lambda _, *rest: build(kind, *rest)
        start = time.process_time()
        found = generator.generate([model], sample)
        return time.process_time() - start, [best["tokens"].tolist() for best, *_ in found]

    ratios = []
    for repetition in range(args.repetitions + 1):
        for sample in samples:
            kinds = (OfAllMasks, Ancestral) if repetition % 2 else (Ancestral, OfAllMasks)
            found = {kind: run(kind, sample) for kind in kinds}
            if found[Ancestral][1] != found[OfAllMasks][1]:
                raise SystemExit("the translations differ")
            if repetition:  # the first only warms up
                ratios.append(found[OfAllMasks][0] / found[Ancestral][0])
    print(
        f"K = {args.steps}, {args.beams[0]} x {args.beams[1]}: {statistics.median(ratios):.2f} "
        f"times the speed ({min(ratios):.2f} to {max(ratios):.2f}), same translations"
    )


if __name__ == "__main__":
    run_script(main)
