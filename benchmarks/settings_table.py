"""BLEU against sentences per second for several settings of decoding.

    python benchmarks/settings_table.py DATA-BIN CHECKPOINT REFERENCE.toml OTHER.toml ...
        [--sentences N]

The files are those of --decoding-settings. With all of them, each batch is translated in turn. BLEU
is computed on the words as tokenised in the data. `loss` is BLEU lost against the first file, with
the 95 % interval of a paired bootstrap, and `other` counts sentences whose translation differs.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from common import BPE, batches, load, spread_by_length
from one_line_errors import run_script
from sacrebleu.metrics import BLEU

from difformer_plugin.decoding.generator import DiffusionGenerator
from difformer_plugin.decoding.options import DecodingOptions
from difformer_plugin.decoding.settings import read_settings
from difformer_plugin.decoding.text import to_text


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("data", metavar="DATA-BIN")
    add("checkpoint", metavar="CHECKPOINT")
    add("settings", nargs="+", metavar="FILE.toml")
    add("--subset", default="test")
    add("--sentences", type=int, help="spread evenly over all lengths; default: all")
    add("--batch-size", type=int, default=50)
    add("--resamples", type=int, default=500, help="resampled test sets of the bootstrap")
    return parser.parse_args()


def main() -> None:
    """Print the table."""
    args = parse_args()
    (model,), task = load(args.data, [args.checkpoint], args.subset)
    dataset, dictionary = task.dataset(args.subset), task.target_dictionary
    numbers = spread_by_length(dataset, args.sentences)
    generators = {
        Path(path).stem: DiffusionGenerator(dictionary, DecodingOptions(**read_settings(path)), 1)
        for path in args.settings
    }
    outputs, seconds = {name: [] for name in generators}, dict.fromkeys(generators, 0.0)
    references = []
    for batch in batches(dataset, numbers, args.batch_size):
        references += [to_text(dictionary, t, BPE, escape_unk=True) for t in batch["target"]]
        for name, generator in generators.items():
            started = time.perf_counter()
            with torch.inference_mode():
                found = generator.generate([model], batch)
            seconds[name] += time.perf_counter() - started
            outputs[name] += [to_text(dictionary, best["tokens"], BPE) for best, *_ in found]

    bleu = BLEU(tokenize="none", force=True)
    count = len(numbers)
    draws = np.random.default_rng(1).integers(0, count, (args.resamples, count))

    def score(name, sentences):
        texts = [outputs[name][i] for i in sentences]
        return bleu.corpus_score(texts, [[references[i] for i in sentences]]).score

    first = next(iter(generators))
    print(
        f"{'settings':<24}{'BLEU':>7}{'loss':>7}{'95 %':>16}{'other':>7}{'sent./s':>9}{'ratio':>7}"
    )
    for name in generators:
        own, best = score(name, range(count)), score(first, range(count))
        losses = [score(first, draw) - score(name, draw) for draw in draws]
        low, high = np.quantile(losses, [0.025, 0.975])
        other = sum(a != b for a, b in zip(outputs[name], outputs[first]))
        print(
            f"{name:<24}{own:7.2f}{best - own:7.2f}{low:8.2f}{high:8.2f}{other:7}"
            f"{count / seconds[name]:9.2f}{seconds[first] / seconds[name]:7.2f}"
        )
    print(f"{count} sentences of {args.subset}, BLEU {bleu.get_signature()}")


if __name__ == "__main__":
    run_script(main)
