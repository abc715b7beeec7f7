"""Is the engine's output the same as that of the plain path? Counts differences on a test set.

    python benchmarks/same_output.py DATA-BIN CHECKPOINT [--beams 7 3] [--steps 20] [--sentences N]

The script prints how many tokens and candidates differ. For a model that diffuses embeddings, it
also prints how far apart the last z_0-hat of both are and, where tokens differ, how far apart the
logits of the two tokens are. For a model that draws tokens, a token that flips because of round-off
is read by all later steps, so that more may follow. With --double, both are also compared with the
plain path in double precision.
"""

import argparse
import copy
from collections.abc import Callable
from typing import Any

import torch
from common import batches, candidate_lengths, load
from one_line_errors import run_script

from difformer_plugin.bench.differences import count_differing
from difformer_plugin.decoding import engine, oracle
from difformer_plugin.decoding.options import DecodingOptions
from difformer_plugin.decoding.sampling import build_sampler
from difformer_plugin.diffusion.noise import sentence_keys
from difformer_plugin.families.contract import Family

SEED = 1


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("data", metavar="DATA-BIN")
    add("checkpoint", metavar="CHECKPOINT")
    add("--beams", type=int, nargs=2, default=(7, 3), metavar=("LENGTHS", "NOISES"))
    add("--steps", type=int, default=20, metavar="K")
    add("--sentences", type=int, help="spread evenly over all lengths; default: all")
    add("--batch-size", type=int, default=50)
    add("--sampler", help="--decoding-sampler")
    add("--temperature", type=float, default=0.0, help="--decoding-temperature")
    add("--double", action="store_true", help="compare with double precision as well")
    return parser.parse_args()


def decode(
    decoder: Callable, model: Family, options: DecodingOptions, source: torch.Tensor, *drawn: Any
) -> tuple[list[list[int]], torch.Tensor | None]:
    """The tokens of all candidates, and their last z_0-hat one after another.

    Args:
        decoder: `engine.decode` or `oracle.decode`.
        drawn: lengths and keys, see `oracle.decode`.
    Returns:
        tokens, and z_0-hat (N, D) or None if the model does not diffuse embeddings.
    """
    rounded, round_ = [], model.round
    model.round = lambda z: rounded.append(z) or round_(z)
    try:
        candidates = decoder(model, options, model.encoder(source), *drawn)
    finally:
        del model.round
    tokens = [candidate.tokens.tolist() for candidate in candidates]
    return tokens, torch.cat(rounded) if model.diffuses_embeddings else None


def in_order(z: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """The engine's z (N, D) in the order of the sentences; it begins with the longest ones."""
    totals = lengths.sum(1).tolist()
    chunks = engine._chunks(lengths.tolist(), engine.CHUNK["cpu"])
    order = [sentence for chunk in chunks for sentence in chunk]
    parts = dict(zip(order, z.split([totals[sentence] for sentence in order])))
    return torch.cat([parts[sentence] for sentence in range(len(totals))])


def count_both(ones: list[list[int]], others: list[list[int]]) -> torch.Tensor:
    """The numbers of tokens and of candidates that differ, (2,)."""
    counts = [count_differing(a, b) for a, b in zip(ones, others, strict=True)]
    return torch.tensor([sum(counts), sum(count > 0 for count in counts)])


def show_counts(counts: torch.Tensor) -> str:
    """The result of `count_both` in words."""
    return f"{counts[0]} tokens, in {counts[1]} candidates"


def show_distances(distances: list[torch.Tensor]) -> str:
    """The largest distance, and the share above 1e-4."""
    found = torch.cat(distances)
    return f"{found.max():.2e}, {(found > 1e-4).double().mean():.1e} of all above 1e-4"


@torch.inference_mode()
def main() -> None:
    """Count, and print."""
    args = parse_args()
    (model,), task = load(args.data, [args.checkpoint], "test")
    dataset = task.dataset("test")
    numbers = dataset.ordered_indices()
    numbers = numbers[:: max(1, len(numbers) // (args.sentences or len(numbers)))]
    options = DecodingOptions(
        decoding_steps=args.steps,
        length_beam_size=args.beams[0],
        noise_beam_size=args.beams[1],
        decoding_sampler=args.sampler,
        decoding_temperature=args.temperature,
    )
    build_sampler(model, options)  # refuses impossible options before anything is decoded
    double = copy.deepcopy(model).double() if args.double else None

    tokens, candidates, differences = 0, 0, torch.zeros(2, dtype=torch.long)
    distances, gaps = [], []
    from_double = {name: torch.zeros(2, dtype=torch.long) for name in ("engine", "plain")}
    errors = {name: [] for name in from_double}
    for batch in batches(dataset, numbers, args.batch_size):
        source = batch["net_input"]["src_tokens"]
        lengths = candidate_lengths(model, model.encoder(source), args.beams)
        keys = sentence_keys(source, task.target_dictionary.pad(), SEED)
        fast, fast_z = decode(engine.decode, model, options, source, lengths, keys)
        plain, plain_z = decode(oracle.decode, model, options, source, lengths, keys)
        tokens, candidates = tokens + sum(map(len, plain)), candidates + len(plain)
        differences += count_both(fast, plain)
        if fast_z is not None:
            fast_z = in_order(fast_z, lengths)
            distances.append((fast_z - plain_z).abs().flatten())
            fast_tokens, plain_tokens = model.round(fast_z)[0], model.round(plain_z)[0]
            differ = (fast_tokens != plain_tokens).nonzero()[:, 0]
            logits = model.denoiser.output_projection(plain_z[differ])
            rows = torch.arange(len(differ))
            gaps += (
                logits[rows, plain_tokens[differ]] - logits[rows, fast_tokens[differ]]
            ).tolist()
        if double is not None:
            exact, exact_z = decode(oracle.decode, double, options, source, lengths, keys)
            for name, found, z in (("engine", fast, fast_z), ("plain", plain, plain_z)):
                from_double[name] += count_both(found, exact)
                if z is not None:
                    errors[name].append((z - exact_z).abs().flatten())

    print(
        f"{len(numbers)} sentences, {tokens} tokens of {candidates} candidates, {args.steps} steps"
    )
    print(f"engine unlike plain: {show_counts(differences)}")
    if distances:
        print(f"difference of z_0-hat: {show_distances(distances)}")
        print(f"tokens that differ: logits at most {max(gaps, default=0):.2e} apart")
    for name in errors if double is not None else ():
        print(f"{name} unlike plain in double precision: {show_counts(from_double[name])}")
        if errors[name]:
            print(f"{name} against double precision, z_0-hat: {show_distances(errors[name])}")


if __name__ == "__main__":
    run_script(main)
