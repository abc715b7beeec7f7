"""What fairseq's CMLM gains from longer lengths, dropped repeats and MBR, which Difformer uses.

    python benchmarks/cmlm_choice.py DATA-BIN CMLM.pt --ref REFERENCE.en [--subset test]
        [--lengths 5] [--length-scales 1 1.04 1.07] [--iterations 9]

Each sentence is decoded with consecutive lengths around the predicted one, as fairseq-generate does
with --iter-decode-with-beam and --iter-decode-force-max-iter; a scale multiplies the predicted
length, as --length-scale does. BLEU (sacreBLEU, detokenised) of the middle length alone, of what
CMLM's own score and MBR choose, and of an oracle. Repeats are dropped as by --collapse-repeats.
"""

import argparse
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from common import BPE, batches, load, spread_by_length
from distance import MBR, Beam, Scorer
from fairseq.tasks import FairseqTask
from one_line_errors import run_script

from difformer_plugin.decoding.candidates import FRAME, Drawn, collapsed, repeats_something
from difformer_plugin.decoding.text import to_text

OWN = "own"  # CMLM's score: the mean log-probability of a candidate's tokens


@contextmanager
def lengths_changed(decoder: Any, scale: float, offset: int) -> Iterator[None]:
    """Multiply predicted lengths, without BOS and EOS, by `scale`, and add `offset`."""
    predict = decoder.forward_length_prediction

    def changed(*args: Any, **kwargs: Any) -> torch.Tensor:
        return ((predict(*args, **kwargs) - FRAME) * scale).round().long() + FRAME + offset

    decoder.forward_length_prediction = changed
    try:
        yield
    finally:
        del decoder.forward_length_prediction


def draw(
    model: Any, task: FairseqTask, args: argparse.Namespace, scale: float
) -> tuple[list[Beam], list[Beam]]:
    """The candidates of each sentence, by length, as they are and without repeats."""
    dataset, dictionary = task.dataset(args.subset), task.target_dictionary
    options = Namespace(iter_decode_max_iter=args.iterations, iter_decode_force_max_iter=True)
    generator = task.build_generator([model], options)
    offsets = [i - args.lengths // 2 for i in range(args.lengths)]
    kept, dropped = [], []
    for batch in batches(dataset, spread_by_length(dataset, None), args.batch_size):
        by_length = []
        for offset in offsets:
            with lengths_changed(model.decoder, scale, offset):
                by_length.append(generator.generate([model], batch))
        repeats = repeats_something(batch["net_input"]["src_tokens"], dictionary.pad())
        for i, number in enumerate(batch["id"].tolist()):
            found = [outputs[i][0] for outputs in by_length]
            drawn = [Drawn(each["tokens"], each["positional_scores"], 0, []) for each in found]
            own = {OWN: [float(each["score"]) for each in found]}
            for beams, candidates in (
                (kept, drawn),
                (dropped, drawn if repeats[i] else [collapsed(c) for c in drawn]),
            ):
                texts = [to_text(dictionary, c.tokens.tolist(), BPE) for c in candidates]
                beams.append(Beam(number, texts, own))
    return kept, dropped


def main() -> None:
    """Print a table with a row for each scale and treatment of repeats."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("data", metavar="DATA-BIN")
    add("path", metavar="CMLM.pt")
    add("--ref", required=True, help="raw references; its suffix names the language")
    add("--subset", default="test", help="split to decode")
    add("--lengths", type=int, default=5, help="number of lengths")
    add("--length-scales", type=float, nargs="+", default=[1.0, 1.04, 1.07])
    add("--iterations", type=int, default=9, help="refinements after the first prediction")
    add("--batch-size", type=int, default=50)
    args = parser.parse_args()
    scorer = Scorer(args.ref)
    (model,), task = load(args.data, [args.path], args.subset)
    print(f"| lengths x | repeats | 1 length | {OWN} score of {args.lengths} | MBR | oracle |")
    print("|---:|---|---:|---:|---:|---:|")
    for scale in args.length_scales:
        with torch.inference_mode():
            kept, dropped = draw(model, task, args, scale)
        for name, beams in (("kept", kept), ("dropped", dropped)):
            middle, _ = scorer.by_choice(beams, [args.lengths // 2], [f"{MBR}=1"])
            everything = range(args.lengths)
            scores = scorer.by_choice(beams, everything, [f"{OWN}=1", f"{MBR}=1"])
            row = " | ".join(f"{score:.2f}" for score in (middle, *scores))
            print(f"| {scale:g} | {name} | {row} |", flush=True)
    print(f"BLEU {scorer.corpus.get_signature()}")


if __name__ == "__main__":
    run_script(main)
