"""Test and measure the plug-in on a GPU, and write one JSON file.

    python scripts/gpu_check.py [--data DATA-BIN] [--out gpu.json]    (make test-gpu)

It runs the tests marked `gpu`, on as many GPUs as there are, and then
`difformer bench decode` and `difformer bench train` with the rows of the documentation. Without
--data, the benchmarks read a synthetic corpus, whose vocabulary is small. It takes less than ten
minutes. The exit status is 1 if a test or a benchmark failed. The file is written after each part.

--rehearse runs the same on the CPU, with a tiny model and a part of the tests.
"""

import argparse
import json
import os
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from difformer_plugin import __version__
from difformer_plugin.cli.main import main as difformer
from difformer_plugin.storage.files import atomic_text

ROOT = Path(__file__).resolve().parents[1]
DIFFORMER = [sys.executable, "-m", "difformer_plugin.cli.main"]
SENTENCES = 4000  # of the synthetic corpus
DECODE = {
    "rows": ["plain", "engine", "engine-bf16", "engine-fp16", "transformer", "limit"],
    "options": "--sentences 200 --steps 20 --beams 1 5x2 --batch-size 50 --repetitions 2",
}
TRAIN = {
    "rows": ["plain", "engine", "engine-bf16", "transformer", "transformer-bf16"],
    "options": "--max-tokens 8192 --updates 10",
}
# a run that takes a CPU seconds
REHEARSAL = {
    "tests": ["tests/decoding/test_graphs.py", "tests/diffusion/test_noise.py"],
    "decode": "--arch difformer_tiny --sentences 4 --steps 2 --beams 1 --repetitions 1",
    "train": "--arch difformer_tiny --max-tokens 200 --updates 1 --repetitions 1",
}


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The arguments."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, metavar="DATA-BIN", help="for the benchmarks")
    parser.add_argument("--out", type=Path, default="gpu.json", metavar="FILE")
    parser.add_argument("--rehearse", action="store_true", help="on the CPU, in seconds")
    return parser.parse_args(argv)


def machine() -> dict[str, Any]:
    """The GPUs and the versions of what runs on them."""
    count = torch.cuda.device_count()
    return {
        "gpus": [torch.cuda.get_device_name(i) for i in range(count)],
        "capabilities": [list(torch.cuda.get_device_capability(i)) for i in range(count)],
        "cuda": torch.version.cuda,
        "torch": torch.__version__,
        "python": sys.version.split()[0],
        "difformer_plugin": __version__,
    }


def run_tests(folder: Path, rehearse: bool) -> dict[str, Any]:
    """Run the tests that need a GPU; in a rehearsal, tests of two files that need none."""
    report = folder / "tests.xml"
    chosen = ["-m", "not gpu", *REHEARSAL["tests"]] if rehearse else ["-m", "gpu", "tests"]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *chosen]
    subprocess.run([*command, f"--junitxml={report}"], cwd=ROOT)
    return read_report(report)


def read_report(path: Path) -> dict[str, Any]:
    """The names of the tests in a JUnit report, by outcome."""
    if not path.exists():
        return {"passed": [], "skipped": [], "failed": ["pytest did not start"]}
    found: dict[str, Any] = {"passed": [], "skipped": [], "failed": []}
    for case in ElementTree.parse(path).iter("testcase"):
        kinds = {child.tag for child in case}
        failed = kinds & {"failure", "error"}
        outcome = "failed" if failed else "skipped" if "skipped" in kinds else "passed"
        found[outcome].append(f"{case.get('classname')}.{case.get('name')}")
    return found


def make_corpus(folder: Path) -> Path:
    """Make a data-bin of the demonstration's synthetic language."""
    from difformer_plugin.data.synthetic.grammar import write_corpus

    write_corpus(folder / "raw", 1, SENTENCES, 200, 200)
    text = ["--raw", folder / "raw", "--out", folder / "corpus"]
    pair = ["--source-lang", "de", "--target-lang", "en", "--bpe-merges", 2000]
    if difformer([str(part) for part in ("prepare", "plain", *text, *pair)]):
        sys.exit(1)
    return folder / "corpus" / "data-bin"


def bench(kind: str, data: Path, folder: Path, rows: list[str], options: str) -> dict[str, Any]:
    """Run `difformer bench decode` or `train`: its figures, or how it failed."""
    out = folder / f"{kind}.json"
    command = [*DIFFORMER, "bench", kind, str(data), "--rows", *rows, *options.split()]
    code = subprocess.run([*command, "--json-out", str(out)]).returncode
    return {"exit_status": code, "command": f"difformer bench {kind} DATA-BIN {options}"} | (
        json.loads(out.read_text("utf-8")) if code == 0 else {}
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run all, and write the file after each part."""
    args = parse(argv)
    if args.rehearse:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    elif not torch.cuda.is_available():
        print("error: torch finds no GPU here; --rehearse runs on the CPU", file=sys.stderr)
        return 2
    decode, train = DECODE, TRAIN
    if args.rehearse:
        decode = {"rows": ["engine"], "options": f"{REHEARSAL['decode']} --cpu"}
        train = {"rows": ["engine"], "options": f"{REHEARSAL['train']} --cpu"}
    start, result = time.perf_counter(), {"rehearsal": args.rehearse, **machine()}
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        parts = {
            "tests": lambda: run_tests(folder, args.rehearse),
            "decode": lambda: bench("decode", data, folder, **decode),
            "train": lambda: bench("train", data, folder, **train),
        }
        data = args.data or make_corpus(folder)
        for name, part in parts.items():
            print(f"{name} ...", file=sys.stderr)
            result[name] = part()
            result["seconds"] = round(time.perf_counter() - start, 1)
            with atomic_text(args.out) as file:
                json.dump(result, file, indent=1)
    failed = result["tests"]["failed"]
    print(f"{args.out}: {len(result['tests']['passed'])} tests passed, {len(failed)} failed")
    broken = [kind for kind in ("decode", "train") if result[kind]["exit_status"]]
    return 1 if failed or broken else 0


if __name__ == "__main__":
    sys.exit(main())
