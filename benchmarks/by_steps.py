"""BLEU and sentences per second of several checkpoints by the number of decoding steps K.

    python benchmarks/by_steps.py DATA-BIN NAME=CHECKPOINT ... [--steps 1 5 10 20 50]
        [--settings FILE.toml] [--beams 1 1]

BLEU is computed on the words as tokenised in the data. All models translate each batch in turn, so
that other load on the machine affects them alike. The settings file is one of --decoding-settings.
"""

import argparse
import time
from dataclasses import replace

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
    add("checkpoints", nargs="+", metavar="NAME=CHECKPOINT")
    add("--steps", type=int, nargs="+", default=[1, 5, 10, 20, 50], metavar="K")
    add("--settings", metavar="FILE", help="other options of decoding")
    add("--beams", type=int, nargs=2, default=(1, 1), metavar=("LENGTHS", "NOISES"))
    add("--subset", default="test")
    add("--sentences", type=int, help="spread evenly over all lengths; default: all")
    add("--batch-size", type=int, default=50)
    return parser.parse_args()


def main() -> None:
    """Print both tables."""
    args = parse_args()
    paths = dict(entry.split("=", 1) for entry in args.checkpoints)
    loaded, task = load(args.data, list(paths.values()), args.subset)
    models = dict(zip(paths, loaded))
    dataset, dictionary = task.dataset(args.subset), task.target_dictionary
    numbers = spread_by_length(dataset, args.sentences)
    lengths, noises = args.beams
    options = DecodingOptions(
        length_beam_size=lengths, noise_beam_size=noises, bleu_mbr=lengths * noises > 1
    )
    if args.settings:
        options = replace(options, **read_settings(args.settings))
    generators = {
        steps: DiffusionGenerator(dictionary, replace(options, decoding_steps=steps), seed=1)
        for steps in args.steps
    }
    runs = [(name, steps) for name in models for steps in args.steps]
    outputs, seconds, references = {run: [] for run in runs}, dict.fromkeys(runs, 0.0), []
    for batch in batches(dataset, numbers, args.batch_size):
        references += [to_text(dictionary, t, BPE, escape_unk=True) for t in batch["target"]]
        for name, steps in runs:
            started = time.perf_counter()
            with torch.inference_mode():
                found = generators[steps].generate([models[name]], batch)
            seconds[name, steps] += time.perf_counter() - started
            outputs[name, steps] += [to_text(dictionary, best["tokens"], BPE) for best, *_ in found]

    bleu = BLEU(tokenize="none", force=True)
    heads = "".join(f"{steps:>8}" for steps in args.steps)
    print(f"{'BLEU, K =':<24}{heads}")
    for name in models:
        scores = [bleu.corpus_score(outputs[name, k], [references]).score for k in args.steps]
        print(f"{name:<24}" + "".join(f"{score:8.2f}" for score in scores))
    print(f"\n{'sentences/s, K =':<24}{heads}")
    for name in models:
        rates = [len(numbers) / seconds[name, k] for k in args.steps]
        print(f"{name:<24}" + "".join(f"{rate:8.1f}" for rate in rates))
    print(f"\n{len(numbers)} sentences of {args.subset}, {lengths} x {noises} candidates")
    print(f"BLEU {bleu.get_signature()}")


if __name__ == "__main__":
    run_script(main)
