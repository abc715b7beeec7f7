"""Does the engine give what the plain path gives? Counts over a test set.

    python benchmarks/same_output.py DATA-BIN CHECKPOINT [--beams 7 3] [--steps 20] [--sentences N]

prints how far apart the last z_0-hat of the two are, how many tokens differ, and, where they do,
how far apart the two tokens' logits are.
"""

import argparse

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

latents = []
rounding = model.round
model.round = lambda z: latents.append(z) or rounding(z)  # the last latents are what is rounded
largest, tokens, gaps = 0.0, 0, []
with torch.inference_mode():
    for start in tqdm(range(0, len(order), args.batch_size), disable=None):
        batch = dataset.collater([dataset[i] for i in order[start : start + args.batch_size]])
        source = batch["net_input"]["src_tokens"]
        memory = model.encoder(source)
        predictor = model.length_predictor
        lengths = length_beam(
            predictor(memory), predictor.lengths(memory), args.beams[0], model.max_positions()[1]
        ).repeat_interleave(args.beams[1], dim=1)
        keys, beam = sentence_keys(source, task.target_dictionary.pad(), 1), lengths.shape[1]
        results = []
        for decode in (plain.decode, engine.decode):
            latents.clear()
            decode(model, options, memory, lengths, keys)
            results.append(
                torch.cat(latents).split([int(n) for n in lengths.flatten()])
                if decode is plain.decode
                else torch.cat(latents)
            )
        chunks = engine._chunks(lengths.tolist(), engine.CHUNK["cpu"])
        places = [s * beam + i for chunk in chunks for s in chunk for i in range(beam)]
        ours, theirs = results[1], torch.cat([results[0][i] for i in places])
        largest = max(largest, (ours - theirs).abs().max().item())
        ours_tokens, theirs_tokens = rounding(ours)[0], rounding(theirs)[0]
        tokens += len(ours)
        differ = (ours_tokens != theirs_tokens).nonzero()[:, 0]
        logits = model.denoiser.output_projection(theirs[differ])
        rows = torch.arange(len(differ))
        gaps += (logits[rows, theirs_tokens[differ]] - logits[rows, ours_tokens[differ]]).tolist()

print(f"{len(order)} sentences, {tokens} tokens of {args.beams[0]} x {args.beams[1]} candidates")
print(f"largest difference of z_0-hat: {largest:.2e}")
print(f"tokens that differ: {len(gaps)}, logits at most {max(gaps, default=0):.2e} apart")
