"""The share of training time that it costs to let the rescaling factor F follow the embeddings.

    python benchmarks/rescaling_cost.py CHECKPOINT [--max-tokens 2048] [--length 20]
        [--interval 1000]

Two operations are timed in turn: an update on random sentences, and a search for F on the
checkpoint's embeddings. The threshold of the search lies within the bounds on F, which is the case
that needs the most evaluations of the score.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from difformer_plugin import register


def timed(function: Callable[[], Any]) -> float:
    """The wall time of a call in seconds."""
    synchronise()
    started = time.perf_counter()
    function()
    synchronise()
    return time.perf_counter() - started


def synchronise() -> None:
    """Wait until a GPU has finished."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def main() -> None:
    """Print the times and the share."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint")
    parser.add_argument("--max-tokens", type=int, default=2048, help="target tokens in an update")
    parser.add_argument("--length", type=int, default=20, help="tokens in a sentence")
    parser.add_argument("--interval", type=int, default=1000, help="updates between searches")
    parser.add_argument("--repetitions", type=int, default=9)
    args = parser.parse_args()
    register()
    from difformer_plugin.checkpoints.without_data import load_without_data
    from difformer_plugin.families.embeddings.objective import DifformerLoss, DifformerLossConfig

    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = load_without_data(args.checkpoint).to(device).train()
    rescaling, table = model.rescaling, model.denoiser.table().detach()
    start, state = rescaling.factor, rescaling.get_extra_state()
    rescaling.cfg.max_dgs = rescaling.score(table, 1.03 * start)
    criterion = DifformerLoss(DifformerLossConfig(), task=None)
    optimiser = torch.optim.Adam(model.parameters())
    shape = max(1, args.max_tokens // args.length), args.length
    types = len(model.denoiser.embed_tokens.weight), len(model.encoder.embed_tokens.weight)
    target, source = (torch.randint(4, size, shape, device=device) for size in types)
    sample = {"net_input": {"src_tokens": source}, "target": target}

    def update():
        optimiser.zero_grad()
        loss, tokens, _ = criterion(model, sample)
        (loss / tokens).backward()
        optimiser.step()

    def follow():
        rescaling.set_extra_state(state)  # start from the same F each time
        rescaling.follow(table, 1)

    update(), follow()  # warm-up
    times = [(timed(update), timed(follow)) for _ in range(args.repetitions)]
    one_update, one_follow = (statistics.median(column) for column in zip(*times))
    print(f"vocabulary x dimension {types[0]} x {model.cfg.latent_dim}, on {device}")
    print(f"one update             {one_update:.3f} s ({shape[0]} sentences of {shape[1]} tokens)")
    print(f"one search for F       {one_follow:.3f} s")
    share = one_follow / (one_follow + args.interval * one_update)
    print(f"every {args.interval} updates      {share:.3%} of the training time")


if __name__ == "__main__":
    main()
