"""Does the engine give what the plain path gives? Counts over a test set.

    python benchmarks/same_output.py DATA-BIN CHECKPOINT [--beams 7 3] [--steps 20] [--sentences N]

prints how many tokens and candidates differ. Of a model whose state is z_t, also how far apart the
last z_0-hat of the two are and, where tokens differ, how far apart the two tokens' logits are. Of
tokens that are drawn, one that flips at round-off is read in all later steps. With --double, how
far each is from the plain path in double precision, too.
"""

import argparse
import copy

import torch

from difformer_plugin.bench.comparing import differing
from difformer_plugin.cli import register_quietly
from difformer_plugin.decoding import engine
from difformer_plugin.decoding import oracle as plain
from difformer_plugin.decoding.candidates import FRAME, length_beam
from difformer_plugin.decoding.options import DecodingOptions
from difformer_plugin.diffusion.noise import sentence_keys

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("data")
parser.add_argument("checkpoint")
parser.add_argument("--beams", type=int, nargs=2, default=(7, 3), metavar=("LENGTHS", "NOISES"))
parser.add_argument("--steps", type=int, default=20)
parser.add_argument("--sentences", type=int, help="so many, spread over the test set; default: all")
parser.add_argument("--batch-size", type=int, default=50)
parser.add_argument("--sampler", help="of a discrete model: --decoding-sampler")
parser.add_argument("--temperature", type=float, default=0.0, help="--decoding-temperature")
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
options = DecodingOptions(
    decoding_steps=args.steps,
    length_beam_size=args.beams[0],
    noise_beam_size=args.beams[1],
    decoding_sampler=args.sampler,
    decoding_temperature=args.temperature,
)
model.decoding_process(options)  # what it refuses is said before the start


def candidate_lengths(model, memory):
    """Of all candidates, (B, b); where lengths grow, of their frames."""
    predictor = model.length_predictor
    if predictor is None:
        lengths = torch.full_like(memory.lengths(), FRAME)[:, None]
    else:
        logits, longest = predictor(memory), model.max_positions()[1]
        lengths = length_beam(logits, predictor.lengths(memory), args.beams[0], longest)
    return lengths.repeat_interleave(args.beams[1], dim=1)


def decoded(model, decode, lengths, source, keys):
    """Tokens of all candidates, and their z_0-hat, one after another, or None if there is none."""
    seen, rounding = [], type(model).round
    model.round = lambda z: seen.append(z) or rounding(model, z)
    try:
        drawn = decode(model, options, model.encoder(source), lengths, keys)
    finally:
        del model.round
    tokens = [candidate.tokens.tolist() for candidate in drawn]
    if not torch.is_tensor(seen[0]):
        return tokens, None
    z = torch.cat(seen)
    if decode is engine.decode:  # which begins with the longest sentences
        totals = lengths.sum(1).tolist()
        chunks = engine._chunks(lengths.tolist(), engine.CHUNK["cpu"])
        order = [s for chunk in chunks for s in chunk]
        runs = dict(zip(order, z.split([totals[s] for s in order])))
        z = torch.cat([runs[s] for s in range(len(totals))])
    return tokens, z


def largest(distances):
    """The largest distance, and how many are above 1e-4."""
    return f"{distances.max():.2e}, {(distances > 1e-4).double().mean():.1e} of all above 1e-4"


def counted(ones, others):
    """How many tokens, and candidates, of the one differ from those of the other."""
    counts = [differing(a, b) for a, b in zip(ones, others, strict=True)]
    return torch.tensor([sum(counts), sum(count > 0 for count in counts)])


tokens, candidates, gaps, apart, errors = 0, 0, [], [], {"engine": [], "plain": []}
differences, from_double = 0, {"engine": 0, "plain": 0}
double = copy.deepcopy(model).double() if args.double else None
with torch.inference_mode():
    for start in tqdm(range(0, len(order), args.batch_size), disable=None):
        batch = dataset.collater([dataset[i] for i in order[start : start + args.batch_size]])
        source = batch["net_input"]["src_tokens"]
        lengths = candidate_lengths(model, model.encoder(source))
        keys = sentence_keys(source, task.target_dictionary.pad(), 1)
        ours, own_z = decoded(model, engine.decode, lengths, source, keys)
        theirs, their_z = decoded(model, plain.decode, lengths, source, keys)
        tokens, candidates = tokens + sum(map(len, theirs)), candidates + len(theirs)
        differences += counted(ours, theirs)
        if own_z is not None:
            apart.append((own_z - their_z).abs().flatten())
            own_tokens, their_tokens = model.round(own_z)[0], model.round(their_z)[0]
            differ = (own_tokens != their_tokens).nonzero()[:, 0]
            logits = model.denoiser.output_projection(their_z[differ])
            rows = torch.arange(len(differ))
            gaps += (logits[rows, their_tokens[differ]] - logits[rows, own_tokens[differ]]).tolist()
        if double is not None:
            exact, exact_z = decoded(double, plain.decode, lengths, source, keys)
            for name, found, z in (("engine", ours, own_z), ("plain", theirs, their_z)):
                from_double[name] += counted(found, exact)
                if z is not None:
                    errors[name].append((z - exact_z).abs().flatten())


def shares(counts):
    """Of tokens and candidates."""
    return f"{counts[0]} tokens, in {counts[1]} candidates"


print(f"{len(order)} sentences, {tokens} tokens of {candidates} candidates, {args.steps} steps")
print(f"engine unlike plain: {shares(differences)}")
if apart:
    print(f"difference of z_0-hat: {largest(torch.cat(apart))}")
    print(f"tokens that differ: logits at most {max(gaps, default=0):.2e} apart")
for name in errors if double is not None else ():
    print(f"{name} unlike plain in double precision: {shares(from_double[name])}")
    if errors[name]:
        print(f"{name} against double precision, z_0-hat: {largest(torch.cat(errors[name]))}")
