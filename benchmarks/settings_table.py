"""BLEU against sentences a second, for settings of decoding given as TOML files.

    python benchmarks/settings_table.py DATA-BIN CHECKPOINT REFERENCE.toml OTHER.toml ...
        [--sentences N]

Files are those of --decoding-settings; all translate the same sentences, batch by batch in turn.
BLEU is of the words as the data has them; the interval is of the paired bootstrap of the loss
against the first file, and `other` counts sentences that it translates otherwise.
"""

import argparse
import time
from pathlib import Path

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
parser.add_argument("checkpoint")
parser.add_argument("settings", nargs="+")
parser.add_argument("--subset", default="test")
parser.add_argument("--sentences", type=int, help="evenly spread by length; default: all")
parser.add_argument("--batch-size", type=int, default=50)
parser.add_argument("--resamples", type=int, default=500)
args = parser.parse_args()

register_quietly()
from fairseq import checkpoint_utils  # noqa: E402
from tqdm import tqdm  # noqa: E402

(model,), _, task = checkpoint_utils.load_model_ensemble_and_task(
    [args.checkpoint], arg_overrides={"data": args.data}
)
model.eval()
task.load_dataset(args.subset)
dataset, dictionary = task.dataset(args.subset), task.target_dictionary
order = dataset.ordered_indices()
chosen = np.linspace(0, len(order) - 1, args.sentences or len(order)).astype(int)
generators = {
    Path(path).stem: DiffusionGenerator(dictionary, DecodingOptions(**read_settings(path)), 1)
    for path in args.settings
}
outputs, seconds, references = {name: [] for name in generators}, dict.fromkeys(generators, 0.0), []
for start in tqdm(range(0, len(chosen), args.batch_size), disable=None):
    part = order[chosen[start : start + args.batch_size]]
    batch = dataset.collater([dataset[i] for i in part])
    references += [to_text(dictionary, t, "@@ ", escape_unk=True) for t in batch["target"]]
    for name, generator in generators.items():
        started = time.perf_counter()
        with torch.inference_mode():
            found = generator.generate([model], batch)
        seconds[name] += time.perf_counter() - started
        outputs[name] += [to_text(dictionary, best["tokens"], "@@ ") for best, *_ in found]

bleu = BLEU(tokenize="none", force=True)
draws = np.random.default_rng(1).integers(0, len(chosen), (args.resamples, len(chosen)))
reference = next(iter(generators))


def score(name, rows):
    texts = [outputs[name][i] for i in rows]
    return bleu.corpus_score(texts, [[references[i] for i in rows]]).score


print(f"{'settings':<24}{'BLEU':>7}{'loss':>7}{'95 %':>16}{'other':>7}{'sent./s':>9}{'ratio':>7}")
everything = range(len(chosen))
for name in generators:
    own, loss = score(name, everything), score(reference, everything) - score(name, everything)
    losses = [score(reference, rows) - score(name, rows) for rows in draws]
    low, high = np.quantile(losses, [0.025, 0.975])
    other = sum(a != b for a, b in zip(outputs[name], outputs[reference]))
    print(
        f"{name:<24}{own:7.2f}{loss:7.2f}{low:8.2f}{high:8.2f}{other:7}"
        f"{len(chosen) / seconds[name]:9.2f}{seconds[reference] / seconds[name]:7.2f}"
    )
print(f"{len(chosen)} sentences of {args.subset}, BLEU {bleu.get_signature()}")
