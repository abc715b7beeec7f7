"""Which part of the distance to a teacher is due to lengths, and which to choosing a candidate?

    python benchmarks/distance.py DATA-BIN CHECKPOINT --ref REFERENCE.en [--teacher TEACHER]
        [--rerank mbr=1,length=0.1 ...] [--beams 7 3] [--steps 20] [--early-stopping 5]
        [--sentences N]

The b1 x b2 candidates of each sentence are drawn once. A table shows the BLEU (sacreBLEU,
detokenised) of what each reranker chooses from the whole beam and from parts of it, which are its
first lengths with their first noises: each reranker alone, the weighted sums of --rerank, and an
oracle that takes the candidate with the best sentence BLEU against the reference; it is nearly an
upper bound of choosing (not exactly, since BLEU is not a mean over sentences). A second table has
the same with the reference's lengths, and the last lines tell how often the likeliest length is the
reference's.
"""

import argparse
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from common import BPE, batches, load, spread_by_length
from fairseq.tasks import FairseqTask
from one_line_errors import run_script

from difformer_plugin.bench.reference_lengths import ReferenceLengthPredictor, ReferenceLengths
from difformer_plugin.decoding.candidates import FRAME
from difformer_plugin.decoding.generator import DiffusionGenerator
from difformer_plugin.decoding.options import DecodingOptions
from difformer_plugin.decoding.text import to_text
from difformer_plugin.errors import UserError
from difformer_plugin.evaluation.metrics import sacre_bleu
from difformer_plugin.evaluation.moses import MosesText
from difformer_plugin.reranking.mbr import MinimumBayesRisk
from difformer_plugin.reranking.ngram_bleu import mbr_scores
from difformer_plugin.reranking.reranker import RERANKERS, UNITS, Batch
from difformer_plugin.reranking.weighted import parse_weights

SEED = 1
MBR = MinimumBayesRisk.name  # its scores depend on the other candidates
WEIGHTED = ("mbr=1,length=0.1", "mbr=1,teacher=0.5,length=0.1")  # as far as there is a teacher


class Beam(NamedTuple):
    """The candidates of a sentence in the order drawn: length by length, noise by noise."""

    number: int  # of the sentence in the split
    texts: list[str]
    scores: dict[str, list[float]]  # by reranker, all but MBR


class Scorer:
    """BLEU against raw references.

    Args:
        path: of the references; its suffix names the language.
    """

    def __init__(self, path: str):
        language = Path(path).suffix[1:]
        self.detokenise = MosesText(language, lowercase=False).detokenise
        self.references = Path(path).read_text(encoding="utf-8").splitlines()
        self.corpus = sacre_bleu(language)
        self._sentence = sacre_bleu(language, effective_order=True)
        self.sentence_bleu = cache(self._sentence_bleu)

    def _sentence_bleu(self, tokens: str, number: int) -> float:
        text = self.detokenise(tokens)
        return self._sentence.sentence_score(text, [self.references[number]]).score

    def by_choice(
        self, beams: list[Beam], part: Sequence[int], choosers: Sequence[str]
    ) -> list[float]:
        """BLEU of each way to choose, and of the oracle.

        Args:
            part: which candidates of each sentence there are to choose from.
            choosers: values of --rerank.
        """
        texts = [[beam.texts[i] for i in part] for beam in beams]
        scores = {MBR: np.array(mbr_scores(texts))}
        for name in beams[0].scores:
            scores[name] = np.array([[beam.scores[name][i] for i in part] for beam in beams])
        sums = [
            np.sum([w * UNITS[name] * scores[name] for name, w in parse_weights(text).items()], 0)
            for text in choosers
        ]
        oracle = [
            [self.sentence_bleu(text, beam.number) for text in own]
            for beam, own in zip(beams, texts)
        ]
        expected = [[self.references[beam.number] for beam in beams]]
        return [
            self.corpus.corpus_score(
                [self.detokenise(own[int(np.argmax(s))]) for own, s in zip(texts, of_all)], expected
            ).score
            for of_all in [*sums, oracle]
        ]


class Drawing:
    """Draws the candidates of the test set.

    Args:
        args: of the command.
        models: the diffusion model and, if there is one, the teacher.
        numbers: of the sentences.
    Attributes:
        names: the rerankers that these models can be used with, MBR among them.
    """

    def __init__(
        self, args: argparse.Namespace, models: list[Any], task: FairseqTask, numbers: np.ndarray
    ):
        self.args, self.models, self.task = args, models, task
        self.dataset, self.numbers = task.dataset(args.subset), numbers
        dictionary = task.target_dictionary
        frame = [dictionary.bos(), dictionary.eos(), dictionary.pad()]
        self.num_tokens = [
            sum(t not in frame for t in self.dataset[i]["target"].tolist())
            for i in range(len(self.dataset))
        ]
        self.references = ReferenceLengths(torch.tensor(self.num_tokens))
        made = {name: kind(DecodingOptions(), dictionary) for name, kind in RERANKERS.items()}
        self.rerankers = {name: made[name] for name in made if self._fits(made[name])}
        self.names = list(self.rerankers)

    def _fits(self, reranker: Any) -> bool:
        """Whether a reranker can be used with these models."""
        try:
            reranker.check(self.models)
        except UserError:
            return False
        return True

    @torch.inference_mode()
    def draw(self, lengths: int, noises: int) -> list[Beam]:
        """The candidates of all sentences, and their scores."""
        options = DecodingOptions(
            decoding_steps=self.args.steps,
            decoding_early_stopping=self.args.early_stopping,
            length_beam_size=lengths,
            noise_beam_size=noises,
        )
        dictionary, beams = self.task.target_dictionary, []
        generator = DiffusionGenerator(dictionary, options, SEED)
        for batch in batches(self.dataset, self.numbers, self.args.batch_size):
            source = batch["net_input"]["src_tokens"]
            self.references.select(batch["id"])
            memory, drawn = generator.draw(self.models, source)
            whole = Batch(self.models, source, memory, drawn)
            scores = {
                name: own.scores(whole) for name, own in self.rerankers.items() if name != MBR
            }
            for s, (number, own) in enumerate(zip(batch["id"].tolist(), drawn)):
                texts = [to_text(dictionary, c.tokens, BPE) for c in own]
                beams.append(Beam(number, texts, {name: scores[name][s] for name in scores}))
        return beams

    @torch.inference_mode()
    def length_errors(self) -> np.ndarray:
        """The likeliest length of each sentence minus the reference's, in subwords."""
        model, errors = self.models[0], []
        for i in self.numbers:
            batch = self.dataset.collater([self.dataset[i]])
            memory = model.encoder(batch["net_input"]["src_tokens"])
            best = model.length_predictor(memory).argmax(-1, keepdim=True)
            length = int(model.length_predictor.lengths(memory).gather(1, best))
            errors.append(length - FRAME - self.num_tokens[i])
        return np.array(errors)


def choosers(names: Sequence[str], weighted: Sequence[str] | None) -> list[str]:
    """What the columns of the tables choose by, as values of --rerank.

    Args:
        names: of the rerankers that the models can be used with.
        weighted: those that were asked for; None for `WEIGHTED`, as far as the models allow.
    Raises:
        SystemExit: one needs a reranker that the models cannot be used with.
    """
    sums = list(WEIGHTED if weighted is None else weighted)
    missing = {text: sorted(set(parse_weights(text)) - set(names)) for text in sums}
    for text in weighted or ():
        if missing[text]:
            raise SystemExit(f"--rerank {text}: {missing[text][0]} cannot be had of these models")
    return [*names, *(text for text in sums if not missing[text])]


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("data", metavar="DATA-BIN")
    add("checkpoint", metavar="CHECKPOINT")
    add("--ref", required=True, help="raw references; the suffix names the language")
    add("--teacher", help="an autoregressive model with the same dictionaries")
    add(
        "--rerank",
        nargs="*",
        metavar="WEIGHTS",
        help=f"weighted sums, as for fairseq-generate; default: {' '.join(WEIGHTED)}",
    )
    add("--beams", type=int, nargs=2, default=(7, 3), metavar=("LENGTHS", "NOISES"))
    add("--steps", type=int, default=20, metavar="K")
    add("--early-stopping", type=int, default=5, metavar="E")
    add("--subset", default="test")
    add("--sentences", type=int, help="spread evenly over all lengths; default: all")
    add("--batch-size", type=int, default=50)
    return parser.parse_args()


def main() -> None:
    """Print both tables."""
    args = parse_args()
    b1, b2 = args.beams
    paths = [path for path in (args.teacher, args.checkpoint) if path]
    (*teachers, model), task = load(args.data, paths, args.subset)
    scorer, dataset = Scorer(args.ref), task.dataset(args.subset)
    if len(scorer.references) != len(dataset):
        raise SystemExit(
            f"{args.ref} has {len(scorer.references)} lines, but {args.subset} has "
            f"{len(dataset)} sentences"
        )
    numbers = spread_by_length(dataset, args.sentences)
    drawing = Drawing(args, [model, *teachers], task, numbers)
    columns = choosers(drawing.names, args.rerank)
    sums = [text for text in columns if text not in RERANKERS]
    heads = {text: f"sum {number}" for number, text in enumerate(sums, 1)}

    def report(title, beams, parts, columns):
        names = [heads.get(text, text) for text in columns]
        print(f"{title:<20}" + "".join(f"{name:>11}" for name in [*names, "oracle"]))
        for lengths, noises in parts:
            part = [i * b2 + j for i in range(lengths) for j in range(noises)]
            row = scorer.by_choice(beams, part, columns)
            print(f"{lengths:>4} x {noises:<13}" + "".join(f"{bleu:11.2f}" for bleu in row))

    parts = {(1, 1), (1, b2), (min(3, b1), 1), (b1, 1), (min(5, b1), min(2, b2)), (b1, b2)}
    report("lengths x noises", drawing.draw(b1, b2), sorted(parts), columns)
    for text in sums:
        print(f"{heads[text]}: {text}")
    errors = drawing.length_errors()
    model.length_predictor = ReferenceLengthPredictor(drawing.references)
    # Lengths are given there: their probabilities are not the model's.
    rest = [text for text in columns if "length" not in parse_weights(text)]
    print()
    report("reference's length", drawing.draw(1, b2), [(1, 1), (1, b2)], rest)
    print(
        f"\nlikeliest length: the reference's for {(errors == 0).mean():.1%}, within 1 for "
        f"{(abs(errors) <= 1).mean():.1%}, within {b1 // 2} for "
        f"{(abs(errors) <= b1 // 2).mean():.1%}; {errors.mean():+.2f} subwords on average"
    )
    print(
        f"{len(numbers)} sentences of {args.subset}, K = {args.steps}, E = {args.early_stopping}; "
        f"{scorer.corpus.get_signature()}"
    )


if __name__ == "__main__":
    run_script(main)
