"""Time and memory of `difformer prepare` by corpus size.

    python benchmarks/prepare_memory.py [LINES ...] [--workers 2]

For each size, the script prints the number of sentence pairs, the seconds, and the peak resident
memory (MiB) of the largest process, fairseq-preprocess included. Each line consists of 4 to 20 of
60,000 synthetic words, drawn by Zipf's law, so that the vocabulary saturates as in a real corpus.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

WORDS = 60_000


def write_corpus(folder: Path, lines: int) -> None:
    """Write train, valid and test; a smaller training set is the beginning of a larger one."""
    draw = np.random.default_rng(1)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyzäöü"))
    words = ["".join(draw.choice(letters, size)) for size in draw.integers(2, 12, WORDS)]
    chances = 1 / np.arange(1, WORDS + 1)
    chances /= chances.sum()
    for split, count in (("train", lines), ("valid", 1000), ("test", 1000)):
        with (
            open(folder / f"{split}.de", "w", encoding="utf-8") as german,
            open(folder / f"{split}.en", "w", encoding="utf-8") as english,
        ):
            for start in range(0, count, 10_000):
                sizes = draw.integers(4, 21, (min(10_000, count - start), 2))
                tokens = iter(draw.choice(WORDS, sizes.sum(), p=chances).tolist())
                for left, right in sizes:
                    for file, size in ((german, left), (english, right)):
                        text = " ".join(words[next(tokens)] for _ in range(size))
                        file.write(f"{text.capitalize()}.\n")


def measure(lines: int, workers: int) -> None:
    """Prepare a corpus of this size in a child process, and print its time and memory."""
    with tempfile.TemporaryDirectory() as folder:
        raw, out = Path(folder, "raw"), Path(folder, "out")
        raw.mkdir()
        write_corpus(raw, lines)
        command = [sys.executable, "-m", "difformer_plugin.cli.main", "prepare", "plain"]
        command += ["--raw", raw, "--out", out, "--source-lang", "de", "--target-lang", "en"]
        started = time.monotonic()
        subprocess.run([*command, "--workers", str(workers)], check=True, capture_output=True)
        seconds = time.monotonic() - started
    # the peak over all child processes so far, so that sizes must grow
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"{lines:>10,} pairs  {seconds:8.1f} s  {peak:8.0f} MiB", flush=True)


def main() -> None:
    """Measure each size, smallest first."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sizes", nargs="*", type=int, default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    for lines in sorted(args.sizes):
        measure(lines, args.workers)


if __name__ == "__main__":
    main()
