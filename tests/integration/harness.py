"""fairseq's commands as processes of their own, each forked from one that has imported fairseq.

A command so gets its own streams, exit status and --user-dir, as in a shell, in a fraction of a
second instead of the eight that importing fairseq takes. Commands see no GPU unless a test says so.
"""

import atexit
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import child
import pytest
import torch

import difformer_plugin
from difformer_plugin.checkpoints.loading import load_weights_only

USER_DIR = str(Path(difformer_plugin.__file__).parent)
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
BIN = Path(sys.executable).parent
FAIRSEQ = {
    f"fairseq-{name}": f"fairseq_cli.{name.replace('-', '_')}"
    for name in ("train", "preprocess", "generate", "interactive", "validate", "hydra-train")
}
os.environ.setdefault("OMP_NUM_THREADS", "1")  # the server of forked commands inherits it
CPU_ONLY = {"CUDA_VISIBLE_DEVICES": ""}
BYTECODE = tempfile.mkdtemp(prefix="bytecode")
atexit.register(shutil.rmtree, BYTECODE, ignore_errors=True)
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["preload"])
# what the server, once started, hands down; it is started with the path of `preload`
PATHS = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
HANDED_DOWN = CPU_ONLY | {"BYTECODE": BYTECODE, "PYTHONPATH": os.pathsep.join(PATHS)}

TASK = ["--task", "diffusion_translation", "--user-dir", USER_DIR, "--cpu"]
SIZES = """
    --model-dim 32 --latent-dim 16 --encoder-layers 1 --decoder-layers 1
    --encoder-attention-heads 2 --decoder-attention-heads 2
    --encoder-ffn-embed-dim 32 --decoder-ffn-embed-dim 32
    --max-source-positions 128 --max-target-positions 128
"""
MODEL = """
    --arch difformer_tiny --criterion difformer_loss --rescaling-factor 4 --self-cond
    --embed-norm --encoder-learned-pos --decoder-learned-pos --pred-length-offset
"""
OPTIMISER = """
    --optimizer adam --lr 5e-3 --clip-norm 1.0 --max-tokens 512 --seed 3 --num-workers 0
    --log-format simple --log-interval 5 --no-epoch-checkpoints
"""
DISCRETE_MODEL = """
    --arch discrete_diffusion_tiny --criterion discrete_diffusion_loss --diffusion-steps 50
    --decoder-learned-pos --pred-length-offset --share-all-embeddings
"""
SENTENCES = 21  # of valid and of test: no multiple of 8
TRAIN = [*TASK, *f"{MODEL} {SIZES} {OPTIMISER}".split()]
DISCRETE = [*TASK, *f"{DISCRETE_MODEL} {SIZES} {OPTIMISER}".split()]


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    out: str
    err: str

    def lines(self, kind):
        """The sentence numbers and texts of fairseq's S-, H-, D-, E- or P-lines, as printed."""
        found = re.findall(rf"^{kind}-(\d+)(?:_\d+)?\t(.*)$", self.out, re.MULTILINE)
        return [(int(number), text.split("\t")[-1]) for number, text in found]

    def translations(self):
        """Sentence number -> the best translation; each sentence must have exactly one."""
        lines = self.lines("H")
        assert len(lines) == len(dict(lines)), "a sentence has two translations"
        return dict(lines)


def fork(module, function, argv, out, err, file_limit=None, environment=None):
    """A process that was forked to run a command's function, its streams going to two files."""
    arguments = (module, function, argv, str(out), str(err), file_limit, environment or {})
    process = SERVER.Process(target=child.call, args=arguments)
    with mock.patch.dict(os.environ, HANDED_DOWN):
        process.start()
    return process


def run(folder, command, *args, file_limit=None, **environment):
    """Run a command of fairseq or `difformer`; its streams are kept in `folder`."""
    module, function = FAIRSEQ.get(command), "cli_main"
    if command == "difformer":
        module, function = "difformer_plugin.cli.main", "main"
    out, err = Path(folder) / f"{command}.out", Path(folder) / f"{command}.err"
    argv = [command, *map(str, args)]
    process = fork(module, function, argv, out, err, file_limit, environment)
    process.join()
    return Outcome(process.exitcode, out.read_text("utf-8"), err.read_text("utf-8"))


def succeed(folder, command, *args):
    """Run a command that must end well."""
    outcome = run(folder, command, *args)
    assert outcome.code == 0, outcome.err[-3000:]
    return outcome


def shell(*command, cwd=None, stdin="", **environment):
    """Run a command as a shell does; programs of this Python's environment come first."""
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    process = subprocess.run(
        [str(part) for part in command],
        input=stdin,
        capture_output=True,
        encoding="utf-8",
        cwd=cwd,
        env={**os.environ, **CPU_ONLY, "PATH": path, **environment},
    )
    return Outcome(process.returncode, process.stdout, process.stderr)


def error_line(outcome):
    """The one line that a user gets for a mistake; there is nothing after it, and no traceback."""
    assert outcome.code not in (0, None), "the command ended well"
    assert "Traceback" not in outcome.out + outcome.err
    errors = [line for line in outcome.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, outcome.err[-3000:]
    assert outcome.err.rstrip().endswith(errors[0])
    return errors[0]


def binarise(text, folder, *options):
    """fairseq-preprocess on tokenised text."""
    splits = [part for s in ("train", "valid", "test") for part in (f"--{s}pref", text / s)]
    succeed(
        text, "fairseq-preprocess", "-s", "de", "-t", "en", "--destdir", folder, *splits, *options
    )
    return folder


def quick_and_slow(quick, slow):
    """Cases for pytest.mark.parametrize: the second list, which unit tests have too, is slow."""
    return [
        *(pytest.param(*case) for case in quick),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in slow),
    ]


def lines(path):
    """The lines of a text file."""
    return path.read_text("utf-8").splitlines()


def redraw(state):
    """Draw the weights anew, so that tokens depend on source, position and noise alike."""
    generator = torch.Generator().manual_seed(0)
    for name, tensor in state.items():
        if torch.is_tensor(tensor) and tensor.is_floating_point() and tensor.dim() == 2:
            large = "embed_tokens" in name or "embed_positions" in name or "project" in name
            tensor.copy_((1.0 if large else 0.05) * torch.randn(tensor.shape, generator=generator))
    for name in ("encoder.embed_tokens.weight", "denoiser.output_projection.weight"):
        state[name] = state["denoiser.embed_tokens.weight"]


def load(checkpoint):
    """A checkpoint file, read as the plug-in reads it."""
    return load_weights_only(checkpoint)


def weights(checkpoint):
    """The weights in a checkpoint file."""
    return load(checkpoint)["model"]


def logged(text, tag):
    """What fairseq logged under a tag: a dict of strings for each line of simple log format."""
    rows = []
    for line in text.splitlines():
        if f"| {tag} |" in line:
            rows.append(dict(re.findall(r"(\w+)[ =]([-+.\w]+)(?: \||,|$)", line.split(tag, 1)[1])))
    return rows
