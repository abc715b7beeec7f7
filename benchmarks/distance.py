"""What decides a model's distance to its teacher: lengths, or the choice among its candidates.

    python benchmarks/distance.py DATA-BIN CHECKPOINT --ref REFERENCE.en [--teacher TEACHER]
        [--beams 7 3] [--steps 20] [--early-stopping 5] [--sentences N]

Each sentence's b1 x b2 candidates are drawn once. BLEU (sacreBLEU, detokenised) is then of what
each way of choosing takes from the whole beam and from its parts, the first lengths with the first
noises: MBR with BLEU, the model's own score, the teacher's perplexity, and the oracle, which
takes the candidate with the best sentence BLEU against the reference (no greater BLEU can be
reached by choosing, but for BLEU's not being a mean over sentences). At the end the same with the
references' lengths, and how often the likeliest length is the reference's.
"""

import argparse
from functools import cache
from pathlib import Path

import numpy as np
import torch

from difformer_plugin.cli import register_quietly
from difformer_plugin.decoding.candidates import FRAME
from difformer_plugin.decoding.generator import DiffusionGenerator
from difformer_plugin.decoding.options import DecodingOptions
from difformer_plugin.decoding.text import to_text
from difformer_plugin.evaluation.inputs import Words
from difformer_plugin.evaluation.metrics import sacre_bleu
from difformer_plugin.reranking.ngram_bleu import mbr_scores
from difformer_plugin.reranking.teacher import candidate_log_probs

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("data")
parser.add_argument("checkpoint")
parser.add_argument("--ref", required=True, help="raw text; its ending names the language")
parser.add_argument("--teacher", help="an autoregressive model of the same dictionaries")
parser.add_argument("--beams", type=int, nargs=2, default=(7, 3), metavar=("LENGTHS", "NOISES"))
parser.add_argument("--steps", type=int, default=20)
parser.add_argument("--early-stopping", type=int, default=5)
parser.add_argument("--subset", default="test")
parser.add_argument("--sentences", type=int, help="evenly spread by length; default: all")
parser.add_argument("--batch-size", type=int, default=50)
args = parser.parse_args()

register_quietly()
from fairseq import checkpoint_utils  # noqa: E402
from tqdm import tqdm  # noqa: E402

from difformer_plugin.bench.lengths import ReferenceLengths, References  # noqa: E402

b1, b2 = args.beams
overrides = {"data": args.data}
(model,), _, task = checkpoint_utils.load_model_ensemble_and_task(
    [args.checkpoint], arg_overrides=overrides
)
model.eval()
teacher = None
if args.teacher:
    (teacher,), *_ = checkpoint_utils.load_model_ensemble_and_task(
        [args.teacher], arg_overrides=overrides
    )
    teacher.eval()
task.load_dataset(args.subset)
dataset, dictionary = task.dataset(args.subset), task.target_dictionary
language = Path(args.ref).suffix[1:]
text = cache(Words(language, lowercase=False).join)
raw = Path(args.ref).read_text(encoding="utf-8").splitlines()
corpus, sentence = sacre_bleu(language), sacre_bleu(language, effective_order=True)
order = dataset.ordered_indices()
if len(raw) != len(order):
    parser.error(f"{args.ref} has {len(raw)} lines, and {args.subset} {len(order)} sentences")
order = order[np.linspace(0, len(order) - 1, args.sentences or len(order)).astype(int)]


class AllCandidates(DiffusionGenerator):
    """The candidates of each sentence as they were drawn: length by length, noise by noise."""

    def _choose(self, models, src_tokens, sentences):
        return sentences


def decode(lengths, noises):
    """For each sentence its candidates' texts, their own scores and the teacher's."""
    options = DecodingOptions(
        decoding_steps=args.steps,
        decoding_early_stopping=args.early_stopping,
        length_beam_size=lengths,
        noise_beam_size=noises,
    )
    generator, found = AllCandidates(dictionary, options, 1), []
    for start in tqdm(range(0, len(order), args.batch_size), disable=None):
        part = order[start : start + args.batch_size]
        batch = dataset.collater([dataset[i] for i in part])
        references.aim(batch["id"])
        with torch.inference_mode():
            drawn = generator.generate([model], batch)
            tokens = [[c.tokens for c in own] for own in drawn]
            by_teacher = teacher and candidate_log_probs(
                teacher, batch["net_input"]["src_tokens"], tokens, dictionary
            )
        for i, (number, own) in enumerate(zip(batch["id"].tolist(), drawn)):
            texts = [to_text(dictionary, c.tokens, "@@ ") for c in own]
            scores = [c.log_probs.mean().item() for c in own]
            found.append((number, texts, scores, by_teacher[i] if teacher else scores))
    return found


def choices(found, lengths, noises):
    """BLEU of each way of choosing among the first lengths and the first noises of each."""
    part = [i * b2 + j for i in range(lengths) for j in range(noises)]
    beams = [[texts[i] for i in part] for _, texts, *_ in found]
    goodness = [
        mbr_scores(beams),
        [[own[i] for i in part] for *_, own, _ in found],
        [[by_teacher[i] for i in part] for *_, by_teacher in found],
        [
            [sentence_bleu(text(one), raw[number]) for one in beam]
            for (number, *_), beam in zip(found, beams)
        ],
    ]
    chosen = [
        [text(beam[int(np.argmax(scores))]) for beam, scores in zip(beams, by)] for by in goodness
    ]
    expected = [[raw[number] for number, *_ in found]]
    return [corpus.corpus_score(texts, expected).score for texts in chosen]


@cache
def sentence_bleu(hypothesis, reference):
    """The one of them against the other, 0 to 100."""
    return sentence.sentence_score(hypothesis, [reference]).score


def report(title, found, beams):
    """Print a table of the parts of a beam."""
    teachers = "teacher" if teacher else "-"
    print(f"{title:<20}{'MBR':>8}{'own':>8}{teachers:>9}{'oracle':>8}")
    for lengths, noises in beams:
        mbr, own, by_teacher, oracle = choices(found, lengths, noises)
        print(
            f"{lengths:>4} x {noises:<13}{mbr:8.2f}{own:8.2f}"
            f"{by_teacher if teacher else float('nan'):9.2f}{oracle:8.2f}"
        )


frame = [dictionary.bos(), dictionary.eos(), dictionary.pad()]
subwords = [sum(t not in frame for t in dataset[i]["target"].tolist()) for i in range(len(dataset))]
references = References(torch.tensor(subwords))

grid = {(1, 1), (1, b2), (min(3, b1), 1), (b1, 1), (min(5, b1), min(2, b2)), (b1, b2)}
beam = decode(b1, b2)
report("lengths x noises", beam, sorted(grid))
predicted = model.length_predictor
with torch.inference_mode():
    errors = []
    for i in order:
        batch = dataset.collater([dataset[i]])
        memory = model.encoder(batch["net_input"]["src_tokens"])
        best = predicted(memory).argmax(-1, keepdim=True)
        errors.append(int(predicted.lengths(memory).gather(1, best)) - FRAME - subwords[i])
errors = np.array(errors)
model.length_predictor = ReferenceLengths(references)
report("\nreference's length", decode(1, b2), [(1, 1), (1, b2)])
print(
    f"\nlikeliest length: the reference's for {(errors == 0).mean():.1%}, within 1 for "
    f"{(abs(errors) <= 1).mean():.1%}, within {b1 // 2} for {(abs(errors) <= b1 // 2).mean():.1%};"
    f" {errors.mean():+.2f} subwords on average"
)
print(
    f"{len(order)} sentences of {args.subset}, K = {args.steps}, E = {args.early_stopping}; "
    f"{corpus.get_signature()}"
)
