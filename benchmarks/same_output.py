"""Does the engine give what the plain path gives? Counts over a test set.

    python benchmarks/same_output.py DATA-BIN CHECKPOINT [--beams 7 3] [--steps 20] [--sentences N]

prints how far apart the last z_0-hat of the two are, how many tokens differ, and, where they do,
how far apart the two tokens' logits are. With --double, how far each is from the plain path in
double precision, too.
"""

import argparse
import copy

import torch

from difformer_plugin.cli import register_quietly
from difformer_plugin.decoding import engine, plain
from difformer_plugin.decoding.candidates import length_beam
from difformer_plugin.decoding.options import DecodingOptions
from difformer_plugin.diffusion.noise import sentence_keys

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("data")
parser.add_argument("checkpoint")
parser.add_argument("--beams", type=int, nargs=2, default=(7, 3), metavar=("LENGTHS", "NOISES"))
parser.add_argument("--steps", type=int, default=20)
parser.add_argument("--sentences", type=int, help="so many, spread over the test set; default: all")
parser.add_argument("--batch-size", type=int, default=50)
parser.add_argument("--double", action="store_true")
args = parser.parse_args()

register_quietly()
from fairseq import checkpoint_utils  # noqa: E402
from tqdm import tqdm  # noqa: E402

(model,), _, task = checkpoint_utils.load_model_ensemble_and_task(
    [args.checkpoint], arg_overrides={"data": args.data}
)
model.eval()
task.load_dataset("test")
dataset = task.dataset("test")
order = dataset.ordered_indices()
order = order[:: max(1, len(order) // (args.sentences or len(order)))]
options = DecodingOptions(decoding_steps=args.steps)


def last_latents(model, decode, lengths, source, keys):
    """z_0-hat of all candidates, one after another, as `decode` rounds them."""
    seen, rounding = [], type(model).round
    model.round = lambda z: seen.append(z) or rounding(model, z)
    try:
        decode(model, options, model.encoder(source), lengths, keys)
    finally:
        del model.round
    z = torch.cat(seen)
    if decode is engine.decode:  # which begins with the longest sentences
        totals = lengths.sum(1).tolist()
        chunks = engine._chunks(lengths.tolist(), engine.CHUNK["cpu"])
        order = [s for chunk in chunks for s in chunk]
        runs = dict(zip(order, z.split([totals[s] for s in order])))
        z = torch.cat([runs[s] for s in range(len(totals))])
    return z


def largest(distances):
    """The largest distance, and how many are above 1e-4."""
    return f"{distances.max():.2e}, {(distances > 1e-4).double().mean():.1e} of all above 1e-4"


tokens, gaps, apart, errors = 0, [], [], {"engine": [], "plain": []}
double = copy.deepcopy(model).double() if args.double else None
with torch.inference_mode():
    for start in tqdm(range(0, len(order), args.batch_size), disable=None):
        batch = dataset.collater([dataset[i] for i in order[start : start + args.batch_size]])
        source = batch["net_input"]["src_tokens"]
        memory, predictor = model.encoder(source), model.length_predictor
        lengths = length_beam(
            predictor(memory), predictor.lengths(memory), args.beams[0], model.max_positions()[1]
        ).repeat_interleave(args.beams[1], dim=1)
        keys = sentence_keys(source, task.target_dictionary.pad(), 1)
        ours = last_latents(model, engine.decode, lengths, source, keys)
        theirs = last_latents(model, plain.decode, lengths, source, keys)
        apart.append((ours - theirs).abs().flatten())
        ours_tokens, theirs_tokens = model.round(ours)[0], model.round(theirs)[0]
        tokens += len(ours)
        differ = (ours_tokens != theirs_tokens).nonzero()[:, 0]
        logits = model.denoiser.output_projection(theirs[differ])
        rows = torch.arange(len(differ))
        gaps += (logits[rows, theirs_tokens[differ]] - logits[rows, ours_tokens[differ]]).tolist()
        if double is not None:
            exact = last_latents(double, plain.decode, lengths, source, keys)
            errors["engine"].append((ours - exact).abs().flatten())
            errors["plain"].append((theirs - exact).abs().flatten())

print(f"{len(order)} sentences, {tokens} tokens of {args.beams[0]} x {args.beams[1]} candidates")
print(f"difference of z_0-hat: {largest(torch.cat(apart))}")
print(f"tokens that differ: {len(gaps)}, logits at most {max(gaps, default=0):.2e} apart")
for name, own in errors.items():
    if own:
        print(f"{name} against double precision: {largest(torch.cat(own))}")
