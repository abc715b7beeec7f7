"""BLEU and sentences a second by the number of steps K, for several checkpoints.

    python benchmarks/by_steps.py DATA-BIN NAME=CHECKPOINT ... [--steps 1 5 10 20 50]
        [--settings FILE.toml] [--beams 1 1]

BLEU is of the words as the data has them. All models translate the same sentences, batch by batch
in turn, so that a noisy machine favours none. The settings file is that of --decoding-settings.
"""

import argparse
import time
from dataclasses import replace

import numpy as np
import torch
from sacrebleu.metrics import BLEU

from difformer_plugin.cli import register_quietly
from difformer_plugin.decoding.generator import DiffusionGenerator
from difformer_plugin.decoding.options import DecodingOptions
from difformer_plugin.decoding.settings import read_settings
from difformer_plugin.decoding.text import to_text

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("data")
parser.add_argument("checkpoints", nargs="+", metavar="NAME=CHECKPOINT")
parser.add_argument("--steps", type=int, nargs="+", default=[1, 5, 10, 20, 50])
parser.add_argument("--settings", help="other options of decoding")
parser.add_argument("--beams", type=int, nargs=2, default=(1, 1), metavar=("LENGTHS", "NOISES"))
parser.add_argument("--subset", default="test")
parser.add_argument("--sentences", type=int, help="evenly spread by length; default: all")
parser.add_argument("--batch-size", type=int, default=50)
args = parser.parse_args()

register_quietly()
from fairseq import checkpoint_utils  # noqa: E402
from tqdm import tqdm  # noqa: E402

models = {}
for entry in args.checkpoints:
    name, path = entry.split("=", 1)
    (model,), _, task = checkpoint_utils.load_model_ensemble_and_task(
        [path], arg_overrides={"data": args.data}
    )
    models[name] = model.eval()
task.load_dataset(args.subset)
dataset, dictionary = task.dataset(args.subset), task.target_dictionary
order = dataset.ordered_indices()
chosen = np.linspace(0, len(order) - 1, args.sentences or len(order)).astype(int)
several = args.beams[0] * args.beams[1] > 1
common = DecodingOptions(
    length_beam_size=args.beams[0], noise_beam_size=args.beams[1], bleu_mbr=several
)
if args.settings:
    common = replace(common, **read_settings(args.settings))
runs = [(name, steps) for name in models for steps in args.steps]
outputs, seconds, references = {run: [] for run in runs}, dict.fromkeys(runs, 0.0), []
generators = {
    steps: DiffusionGenerator(dictionary, replace(common, decoding_steps=steps), 1)
    for steps in args.steps
}
for start in tqdm(range(0, len(chosen), args.batch_size), disable=None):
    part = order[chosen[start : start + args.batch_size]]
    batch = dataset.collater([dataset[i] for i in part])
    references += [to_text(dictionary, t, "@@ ", escape_unk=True) for t in batch["target"]]
    for name, steps in runs:
        started = time.perf_counter()
        with torch.inference_mode():
            found = generators[steps].generate([models[name]], batch)
        seconds[name, steps] += time.perf_counter() - started
        outputs[name, steps] += [to_text(dictionary, best["tokens"], "@@ ") for best, *_ in found]

bleu = BLEU(tokenize="none", force=True)
print(f"{'BLEU, K =':<24}" + "".join(f"{steps:>8}" for steps in args.steps))
for name in models:
    scores = [bleu.corpus_score(outputs[name, k], [references]).score for k in args.steps]
    print(f"{name:<24}" + "".join(f"{score:8.2f}" for score in scores))
print(f"\n{'sentences/s, K =':<24}" + "".join(f"{steps:>8}" for steps in args.steps))
for name in models:
    rates = [len(chosen) / seconds[name, k] for k in args.steps]
    print(f"{name:<24}" + "".join(f"{rate:8.1f}" for rate in rates))
print(f"\n{len(chosen)} sentences of {args.subset}, {args.beams[0]} x {args.beams[1]} candidates")
print(f"BLEU {bleu.get_signature()}")
