"""Which part of the distance to a teacher is due to lengths, and which to choosing a candidate?

    python benchmarks/distance.py DATA-BIN CHECKPOINT --ref REFERENCE.en [--teacher TEACHER]
        [--beams 7 3] [--steps 20] [--early-stopping 5] [--sentences N]

The b1 x b2 candidates of each sentence are drawn once. A table shows the BLEU (sacreBLEU,
detokenised) of several ways to choose from the whole beam and from parts of it, which are its first
lengths with their first noises. The ways are MBR with BLEU, the model's own score, the teacher's
perplexity, and an oracle that takes the candidate with the best sentence BLEU against the
reference; it is nearly an upper bound of choosing (not exactly, since BLEU is not a mean over
sentences). A second table has the same with the reference's lengths, and the last lines tell how
often the likeliest length is the reference's.
"""

import argparse
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from common import BPE, batches, candidate_lengths, load, spread_by_length
from fairseq.tasks import FairseqTask

from difformer_plugin.bench.reference_lengths import ReferenceLengthPredictor, ReferenceLengths
from difformer_plugin.decoding import engine
from difformer_plugin.decoding.candidates import FRAME
from difformer_plugin.decoding.options import DecodingOptions
from difformer_plugin.decoding.text import to_text
from difformer_plugin.diffusion.noise import sentence_keys
from difformer_plugin.evaluation.metrics import sacre_bleu
from difformer_plugin.evaluation.moses import MosesText
from difformer_plugin.families.contract import Family
from difformer_plugin.reranking.ngram_bleu import mbr_scores
from difformer_plugin.reranking.teacher import candidate_log_probs

SEED = 1


class Beam(NamedTuple):
    """The candidates of a sentence in the order drawn: length by length, noise by noise."""

    number: int  # of the sentence in the split
    texts: list[str]
    own_scores: list[float]
    teacher_scores: list[float]


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
        self, beams: list[Beam], noise_beam: int, lengths: int, noises: int
    ) -> list[float]:
        """BLEU of each way to choose: MBR, own score, teacher, and oracle.

        Args:
            noise_beam: b2 of the beams.
            lengths: how many of the first lengths to choose from.
            noises: how many of the first noises of each to choose from.
        """
        part = [i * noise_beam + j for i in range(lengths) for j in range(noises)]
        texts = [[beam.texts[i] for i in part] for beam in beams]
        scores = [
            mbr_scores(texts),
            [[beam.own_scores[i] for i in part] for beam in beams],
            [[beam.teacher_scores[i] for i in part] for beam in beams],
            [
                [self.sentence_bleu(text, beam.number) for text in own]
                for beam, own in zip(beams, texts)
            ],
        ]
        expected = [[self.references[beam.number] for beam in beams]]
        return [
            self.corpus.corpus_score(
                [self.detokenise(own[int(np.argmax(s))]) for own, s in zip(texts, of_all)], expected
            ).score
            for of_all in scores
        ]


class Drawing:
    """Draws the candidates of the test set.

    Args:
        args: of the command.
        model: the diffusion model.
        teacher: an autoregressive model, or None.
        numbers: of the sentences.
    """

    def __init__(
        self,
        args: argparse.Namespace,
        model: Family,
        teacher: torch.nn.Module | None,
        task: FairseqTask,
        numbers: np.ndarray,
    ):
        self.args, self.model, self.teacher, self.task = args, model, teacher, task
        self.dataset, self.numbers = task.dataset(args.subset), numbers
        dictionary = task.target_dictionary
        frame = [dictionary.bos(), dictionary.eos(), dictionary.pad()]
        self.num_tokens = [
            sum(t not in frame for t in self.dataset[i]["target"].tolist())
            for i in range(len(self.dataset))
        ]
        self.references = ReferenceLengths(torch.tensor(self.num_tokens))

    @torch.inference_mode()
    def draw(self, lengths: int, noises: int) -> list[Beam]:
        """The candidates of all sentences."""
        options = DecodingOptions(
            decoding_steps=self.args.steps, decoding_early_stopping=self.args.early_stopping
        )
        dictionary, beams, size = self.task.target_dictionary, [], lengths * noises
        for batch in batches(self.dataset, self.numbers, self.args.batch_size):
            source = batch["net_input"]["src_tokens"]
            self.references.select(batch["id"])
            memory = self.model.encoder(source)
            all_lengths = candidate_lengths(self.model, memory, (lengths, noises))
            keys = sentence_keys(source, dictionary.pad(), SEED)
            drawn = engine.decode(self.model, options, memory, all_lengths, keys)
            drawn = [drawn[i : i + size] for i in range(0, len(drawn), size)]
            own = [[c.log_probs.mean().item() for c in candidates] for candidates in drawn]
            by_teacher = own
            if self.teacher is not None:
                tokens = [[c.tokens for c in candidates] for candidates in drawn]
                by_teacher = candidate_log_probs(self.teacher, source, tokens, dictionary)
            texts = [[to_text(dictionary, c.tokens, BPE) for c in own] for own in drawn]
            beams += map(Beam, batch["id"].tolist(), texts, own, by_teacher)
        return beams

    @torch.inference_mode()
    def length_errors(self) -> np.ndarray:
        """The likeliest length of each sentence minus the reference's, in subwords."""
        predictor, errors = self.model.length_predictor, []
        for i in self.numbers:
            batch = self.dataset.collater([self.dataset[i]])
            memory = self.model.encoder(batch["net_input"]["src_tokens"])
            best = predictor(memory).argmax(-1, keepdim=True)
            length = int(predictor.lengths(memory).gather(1, best))
            errors.append(length - FRAME - self.num_tokens[i])
        return np.array(errors)


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("data", metavar="DATA-BIN")
    add("checkpoint", metavar="CHECKPOINT")
    add("--ref", required=True, help="raw references; the suffix names the language")
    add("--teacher", help="an autoregressive model with the same dictionaries")
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
    teacher = teachers[0] if teachers else None
    scorer, dataset = Scorer(args.ref), task.dataset(args.subset)
    if len(scorer.references) != len(dataset):
        raise SystemExit(
            f"{args.ref} has {len(scorer.references)} lines, but {args.subset} has "
            f"{len(dataset)} sentences"
        )
    numbers = spread_by_length(dataset, args.sentences)
    drawing = Drawing(args, model, teacher, task, numbers)

    def report(title, beams, parts):
        print(f"{title:<20}{'MBR':>8}{'own':>8}{'teacher' if teacher else '-':>9}{'oracle':>8}")
        for lengths, noises in parts:
            mbr, own, by_teacher, oracle = scorer.by_choice(beams, b2, lengths, noises)
            print(
                f"{lengths:>4} x {noises:<13}{mbr:8.2f}{own:8.2f}"
                f"{by_teacher if teacher else float('nan'):9.2f}{oracle:8.2f}"
            )

    parts = {(1, 1), (1, b2), (min(3, b1), 1), (b1, 1), (min(5, b1), min(2, b2)), (b1, b2)}
    report("lengths x noises", drawing.draw(b1, b2), sorted(parts))
    errors = drawing.length_errors()
    model.length_predictor = ReferenceLengthPredictor(drawing.references)
    report("\nreference's length", drawing.draw(1, b2), [(1, 1), (1, b2)])
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
    main()
