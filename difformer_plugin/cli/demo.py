"""`difformer demo`: from raw text to a scored translation, every command shown."""

import json
import os
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

from difformer_plugin.errors import UserError

# Sinusoidal positions and no --apply-bert-init: in so few updates they learn far faster.
TRAIN = """
    --task diffusion_translation --arch difformer_tiny --criterion difformer_loss
    --share-all-embeddings --noise-schedule sqrt --rescaling-factor 3
    --embed-norm --embed-norm-affine --self-cond --rescale-timesteps --pred-length-offset
    --optimizer adam --adam-betas (0.9,0.98) --weight-decay 0.01 --clip-norm 1.0
    --lr 3e-3 --lr-scheduler cosine --warmup-updates 200
    --dropout 0 --max-tokens 2048
    --no-epoch-checkpoints --log-format simple --log-interval 50
"""
GENERATE = """
    --task diffusion_translation --gen-subset test
    --decoding-steps 20 --decoding-early-stopping 5
    --length-beam-size 3 --noise-beam-size 2 --bleu-mbr
    --retain-iter-history --retain-z-0-hat --batch-size 100
    --log-format simple --log-interval 1
"""
MAX_UPDATE = 1600
TRAIN_SIZE, TEST_SIZE = 40_000, 500  # of the generated corpus

RESULT = re.compile(rb"^[STHDPE]-\d")  # thousands of lines that go to the log alone
TAIL = 15  # lines of a failed stage's log that are repeated


def add_parser(subparsers):
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "demo", help="train a small model and translate with it, from raw text to BLEU"
    )
    parser.add_argument(
        "--data",
        type=Path,
        metavar="FOLDER",
        help="raw text: train.de, train.en, valid.*, test.*, plain or .gz "
        "(default: a synthetic German-English corpus)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("demo-run"),
        metavar="FOLDER",
        help="where everything goes (default: demo-run); an interrupted run goes on from there",
    )
    parser.add_argument("--source-lang", default="de", help="default: de")
    parser.add_argument("--target-lang", default="en", help="default: en")
    parser.add_argument(
        "--max-update",
        type=int,
        default=MAX_UPDATE,
        metavar="N",
        help=f"updates of training (default: {MAX_UPDATE})",
    )
    parser.add_argument("--seed", type=int, default=1, help="default: 1")
    parser.add_argument(
        "--train-size",
        type=int,
        default=TRAIN_SIZE,
        help=f"sentences of the synthetic corpus (default: {TRAIN_SIZE})",
    )
    parser.add_argument(
        "--test-size",
        type=int,
        default=TEST_SIZE,
        help=f"and of its valid and test sets (default: {TEST_SIZE})",
    )
    parser.set_defaults(run=run)


def run(args):
    """Run the stages that are not done yet, then print the report and write OUT/report.txt."""
    from difformer_plugin.data.sources import read_lines
    from difformer_plugin.demo import report as demo_report
    from difformer_plugin.storage.files import atomic_text

    check(args)
    key = corpus_key(args)
    args.out.mkdir(parents=True, exist_ok=True)
    raw = args.data or args.out / "raw"
    stages = Stages(args.out)
    stages.call("corpus", key, lambda: prepare_corpus(args, raw))
    # An interrupted fairseq-preprocess leaves dictionaries that make the next one stop.
    preprocess, train, generate = commands(args)
    if not stages.is_done("fairseq-preprocess", preprocess):
        for dictionary in (args.out / "data-bin").glob("dict.*.txt"):
            dictionary.unlink()
    for command in (preprocess, train, generate):
        stages.command(command)

    outputs = demo_report.parse_outputs(read_lines(stages.log("fairseq-generate")))
    test = [args.out / "corpus" / "reference" / f"test.{lang}" for lang in languages(args)]
    pairs = list(zip(*map(read_lines, test), strict=True))
    report = demo_report.render(stages.done, pairs, outputs, args.target_lang)
    with atomic_text(args.out / "report.txt") as handle:
        handle.write(report)
    print(f"\n{report}\nThis report is in {args.out / 'report.txt'}")
    return 0


def check(args):
    """Raise a UserError for options that cannot work together."""
    if args.max_update < 1:
        raise UserError(f"--max-update must be at least 1, not {args.max_update}")
    if args.data is None and (args.source_lang, args.target_lang) != ("de", "en"):
        raise UserError(
            "the synthetic corpus is German to English: give --data for other languages"
        )
    if min(args.train_size, args.test_size) < 1:
        raise UserError("--train-size and --test-size must be at least 1")
    if args.source_lang == args.target_lang:
        raise UserError(f"--source-lang and --target-lang are both {args.source_lang}")
    if args.out.is_file():
        raise UserError(f"--out {args.out} is a file: name a folder")
    foreign = args.out.is_dir() and any(args.out.iterdir())
    if foreign and not (args.out / "stages.json").exists():
        raise UserError(f"--out {args.out} holds other things: name a folder that is new or empty")


def languages(args):
    """Source and target."""
    return args.source_lang, args.target_lang


def load_recipe(args):
    """Plain text; whole words of the synthetic corpus, subwords of another."""
    from difformer_plugin.data.recipe import load

    recipe = load("plain")
    return recipe if args.data is not None else replace(recipe, bpe_merges=0)


def corpus_key(args):
    """What the tokenised corpus is made of: the generator's options, or the user's files."""
    from difformer_plugin.data.preparation import fingerprint

    if args.data is None:
        return ["synthetic", args.seed, args.train_size, args.test_size]
    return fingerprint(load_recipe(args), args.data, languages(args))


def prepare_corpus(args, raw):
    """Tokenised text in OUT/corpus/text."""
    from difformer_plugin.data.preparation import prepare
    from difformer_plugin.data.resumable_pass import cores
    from difformer_plugin.data.synthetic.grammar import write_corpus

    if args.data is None:
        write_corpus(raw, args.seed, args.train_size, args.test_size, args.test_size)
    prepare(load_recipe(args), raw, args.out / "corpus", languages(args), cores())


def commands(args):
    """The three fairseq commands, in the order in which they run."""
    import torch

    import difformer_plugin

    data, checkpoints = str(args.out / "data-bin"), str(args.out / "checkpoints")
    package = Path(difformer_plugin.__file__).resolve().parent
    if Path.cwd() in package.parents:
        package = package.relative_to(Path.cwd())
    user_dir = ["--user-dir", str(package)]
    device = [] if torch.cuda.is_available() else ["--cpu"]
    seed = ["--seed", str(args.seed)]
    preprocess = ["fairseq-preprocess", "--joined-dictionary", "--destdir", data]
    preprocess += ["--source-lang", args.source_lang, "--target-lang", args.target_lang]
    for split in ("train", "valid", "test"):
        preprocess += [f"--{split}pref", str(args.out / "corpus" / "text" / split)]
    train = ["fairseq-train", data, *user_dir, *TRAIN.split(), "--save-dir", checkpoints]
    train += ["--max-update", str(args.max_update), *seed, *device]
    generate = ["fairseq-generate", data, *user_dir, *GENERATE.split()]
    generate += ["--path", f"{checkpoints}/checkpoint_last.pt", *seed, *device]
    if args.data is not None:
        generate += ["--remove-bpe"]
    return preprocess, train, generate


class Stages:
    """Stages run one after the other, each skipped if it is done and nothing before it changed.

    OUT/stages.json holds what each finished stage ran and how long it took; `done` the same of
    this run, as (name, command, seconds, skipped).
    """

    def __init__(self, out):
        self.out, self.done = out, []
        self.file = out / "stages.json"
        self.finished = json.loads(self.file.read_text()) if self.file.exists() else {}

    def log(self, name):
        """Path of a stage's log."""
        return self.out / f"{name}.log"

    def is_done(self, name, key):
        """Whether the stage ended well with this key in an earlier run."""
        return name in self.finished and self.finished[name]["key"] == key

    def call(self, name, key, function):
        """The first stage, a function of ours; a change of its key needs another folder."""
        if name in self.finished and not self.is_done(name, key):
            raise UserError(
                f"{self.out} holds a run on another corpus: choose another --out, or remove it"
            )
        self.run(name, key, function)

    def command(self, command):
        """A fairseq command."""
        self.run(command[0], command, lambda: execute(command, self.log(command[0])), command)

    def run(self, name, key, function, command=()):
        """Call `function` and record it, unless an earlier run did so with the same key."""
        skipped = self.is_done(name, key)
        if not skipped:
            # What comes after was made of what this stage is about to replace.
            names = list(self.finished)
            for later in names[names.index(name) :] if name in names else []:
                del self.finished[later]
            self._save()
            started = time.monotonic()
            function()
            seconds = round(time.monotonic() - started, 1)
            self.finished[name] = {"key": key, "seconds": seconds}
            self._save()
        self.done.append((name, command, self.finished[name]["seconds"], skipped))

    def _save(self):
        from difformer_plugin.storage.files import atomic_text

        with atomic_text(self.file) as handle:
            json.dump(self.finished, handle, indent=1)


def execute(command, log):
    """Run a command of this Python's environment; show its output and keep it in `log`."""
    from difformer_plugin.demo.report import show

    program = Path(sys.executable).parent / command[0]
    if not program.exists():
        raise UserError(f"{program} is missing: install fairseq-fixed into this environment")
    print(f"\n$ {show(command)}", flush=True)
    environment = {
        **os.environ,
        "PYTHONUNBUFFERED": "1",  # log lines and results keep their order and stay whole
        "PYTHONUTF8": "1",
        "PYTHONWARNINGS": "ignore::UserWarning",  # fairseq's libraries warn of fairseq's calls
    }
    with (
        open(log, "wb") as copy,
        subprocess.Popen(
            [program, *command[1:]],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
        ) as process,
    ):
        try:
            for line in process.stdout:
                copy.write(line)
                if not RESULT.match(line):
                    print(line.decode("utf-8", "replace"), end="", flush=True)
        except BaseException:
            process.terminate()
            raise
    if process.returncode != 0:
        tail = "".join(log.read_text("utf-8", "replace").splitlines(keepends=True)[-TAIL:])
        raise UserError(
            f"{command[0]} failed with exit status {process.returncode}; {log} ends:\n{tail}"
        )
