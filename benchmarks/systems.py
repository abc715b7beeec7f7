"""Joint diffusion in all its forms, beside the other families, on the demonstration's corpus.

    python benchmarks/systems.py DEMO [SYSTEM ...] [--updates 800] [--out FOLDER]

DEMO is the folder that `difformer demo` wrote. Each system of SYSTEMS below, or of those that are
named, is trained in a folder of its own and translates the test set; the table has a line for each
way of decoding it. What is there already is kept, and a training that was stopped goes on.
"""

import argparse
import sys
from pathlib import Path
from typing import NamedTuple

from sacrebleu.metrics import BLEU

import difformer_plugin
from difformer_plugin.data.sources import read_lines
from difformer_plugin.demo.stages import execute
from difformer_plugin.errors import UserError
from difformer_plugin.evaluation.outputs import parse_outputs
from difformer_plugin.storage.files import atomic_text

TASK = [
    "--user-dir",
    str(Path(difformer_plugin.__file__).parent),
    "--task",
    "diffusion_translation",
]
OPTIMIZER = """
    --optimizer adam --adam-betas (0.9,0.98) --weight-decay 0.01 --clip-norm 1.0
    --lr 3e-3 --lr-scheduler cosine --warmup-updates 200 --dropout 0 --max-tokens 2048 --seed 1
"""
LOG = """
    --no-epoch-checkpoints --save-interval-updates 100 --keep-interval-updates 1
    --disable-validation --log-format simple --log-interval 50
"""
OFFSET = "--pred-length-offset"
GAUSSIAN = """
    --noise-schedule sqrt --rescaling-factor 3 --embed-norm --embed-norm-affine --self-cond
    --rescale-timesteps --length-loss-factor 0.01
"""
JOINT = f"--arch joint_diffusion_tiny --criterion joint_diffusion_loss {GAUSSIAN}"
READING = f"{JOINT} --restart-positions --plain-source"
FULL = f"{JOINT} {OFFSET} --restart-positions --conditioning full"
DIFFORMER = f"""
    --arch difformer_tiny --criterion difformer_loss --share-all-embeddings {GAUSSIAN} {OFFSET}
"""
DISCRETE = f"""
    --arch discrete_diffusion_tiny --criterion discrete_diffusion_loss --share-all-embeddings
    --process absorbing {OFFSET}
"""
GENERATE = "--gen-subset test --tokenizer moses --decoding-steps 20 --batch-size 100"
STOPPING = "--decoding-early-stopping 5"
MBR = "--length-beam-size 3 --noise-beam-size 2 --bleu-mbr"
ONE = {"": STOPPING, "mbr": f"{STOPPING} {MBR}"}
NOISES = {"": STOPPING, "mbr": f"{STOPPING} --noise-beam-size 6 --bleu-mbr"}
INFILL = {infill: f"{STOPPING} --infill {infill}" for infill in ("z_0", "z_t", "noised")}


class System(NamedTuple):
    """What to train, and by name how to decode it."""

    options: str
    decodings: dict[str, str] = ONE


SYSTEMS = {
    "reading": System(
        f"{READING} {OFFSET}",
        {**ONE, "blocks": f"{STOPPING} --decoding-autoregressive --block-size 4"},
    ),
    "full": System(FULL, INFILL),
    "full-unscaled": System(f"{FULL} --rescaling-factor 1", INFILL),
    "padding": System(f"{READING} --length-by-padding", NOISES),
    "positional": System(f"{READING} {OFFSET} --noise-schedule positional"),
    "words": System(f"{JOINT} --plain-source --generate-words", {"": STOPPING}),
    "epsilon": System(f"{READING} {OFFSET} --prediction epsilon"),
    "mean": System(f"{READING} {OFFSET} --prediction mean"),
    "expected_embedding": System(f"{READING} {OFFSET} --prediction expected_embedding"),
    "guided": System(
        f"{READING} {OFFSET} --source-dropout 0.1",
        {**ONE, "guided": f"{STOPPING} --guidance-scale 0.5"},
    ),
    "blind": System(f"{READING} {OFFSET} --blind-source"),
    "weighted": System(f"{READING} {OFFSET} --weighted-loss"),
    "published": System(f"{JOINT} {OFFSET}"),
    "difformer": System(DIFFORMER),
    "difformer-expected": System(f"{DIFFORMER} --prediction expected_embedding"),
    "mdlm": System(f"{DISCRETE} --objective mdlm", {"": "", "mbr": MBR}),
    "d3pm": System(f"{DISCRETE} --objective d3pm", {"": "", "mbr": MBR}),
}


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("demo", metavar="DEMO", type=Path)
    parser.add_argument("systems", nargs="*", metavar="SYSTEM", help=", ".join(SYSTEMS))
    parser.add_argument("--updates", type=int, default=800)
    parser.add_argument("--out", type=Path, help="default: DEMO/systems")
    args = parser.parse_intermixed_args()  # names may follow options
    if unknown := set(args.systems) - set(SYSTEMS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(SYSTEMS)}")
    if not (args.demo / "data-bin").is_dir():
        parser.error(f"{args.demo} has no data-bin: difformer demo --out {args.demo} makes one")
    return args


def train(data: Path, system: System, folder: Path, updates: int) -> None:
    """Train a system in its folder, from where an earlier training of it stopped."""
    words = [*TASK, *system.options.split(), *OPTIMIZER.split(), *LOG.split()]
    words += ["--max-update", str(updates), "--save-dir", str(folder), "--cpu"]
    execute(["fairseq-train", str(data), *words], folder / "train.log")


def translate(data: Path, folder: Path, options: str, out: Path) -> None:
    """Translate the test set into `out`, one detokenised translation a line, in its order."""
    words = [*TASK, *GENERATE.split(), *options.split(), "--cpu"]
    words += ["--path", str(folder / "checkpoint_last.pt")]
    log = folder / "generate.log"
    execute(["fairseq-generate", str(data), *words], log)
    best = {n: texts[0] for n, texts in parse_outputs(read_lines(log)).detokenised.items()}
    with atomic_text(out) as handle:
        handle.writelines(f"{best[number]}\n" for number in sorted(best))


def measured(bleu: BLEU, texts: list[str], references: list[str]) -> str:
    """BLEU, and the share of translations that have as many words as their references."""
    score = bleu.corpus_score(texts, [references]).score
    right = sum(len(a.split()) == len(b.split()) for a, b in zip(texts, references, strict=True))
    return f"{score:7.2f}{right / len(references):17.0%}"


def main() -> None:
    """Train and translate what is missing, and print the table."""
    args = parse_args()
    data, out = args.demo / "data-bin", args.out or args.demo / "systems"
    references, bleu = list(read_lines(args.demo / "raw/test.en")), BLEU()
    rows = [f"{'system':<20}{'decoding':<12}{'BLEU':>7}{'lengths right':>17}"]
    for name in args.systems or SYSTEMS:
        system, folder = SYSTEMS[name], out / name
        folder.mkdir(parents=True, exist_ok=True)
        trained = folder / f"trained-{args.updates}"
        if not trained.exists():
            train(data, system, folder, args.updates)
            trained.touch()
        for decoding, options in system.decodings.items():
            found = folder / f"{decoding or 'one'}-{args.updates}.en"
            if not found.exists():
                translate(data, folder, options, found)
            numbers = measured(bleu, list(read_lines(found)), references)
            rows.append(f"{name:<20}{decoding:<12}{numbers}")
    print("\n".join(rows))
    print(f"BLEU {bleu.get_signature()}")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
