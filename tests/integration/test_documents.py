"""The commands of the README, docs/, examples/ and scripts/ work as they are written there.

tests/docs shows that every command of the documents exists; here they run, page by page and in the
order in which they stand, on the tiny corpus of these tests.
"""

import contextlib
import re
import shlex
import shutil

import pytest
from documents import PAGES, REPOSITORY, blocks, commands
from harness import BIN, FAIRSEQ, OPTIMISER, SIZES, TASK, lines, shell, succeed

from difformer_plugin.data import pipeline

SLOW = pytest.mark.slow
RUN = [
    "README.md",
    "docs/difformer.md",
    pytest.param("docs/discrete-diffusion.md", marks=SLOW),
    "docs/decoding.md",
    pytest.param("docs/how-to/average-and-evaluate.md", marks=SLOW),
    pytest.param("docs/how-to/distillation.md", marks=SLOW),
    pytest.param("docs/how-to/guidance.md", marks=SLOW),
    pytest.param("docs/how-to/export.md", marks=SLOW),
    pytest.param("docs/how-to/few-steps.md", marks=SLOW),
    "docs/how-to/translate.md",
    pytest.param("docs/how-to/corpora.md", marks=SLOW),
    pytest.param("docs/how-to/gpus.md", marks=SLOW),
    pytest.param("docs/how-to/hydra.md", marks=SLOW),
    pytest.param("docs/how-to/rescaling-factor.md", marks=SLOW),
    pytest.param("docs/how-to/tuning.md", marks=SLOW),
    pytest.param("docs/tutorial.md", marks=SLOW),
]
# pages with commands that only tests/docs looks at, and where the same commands run
PARSED = {
    "docs/fairseq-users.md": "test_fairseq_option_commands.py translates in shards",
    "docs/contributing.md": "make: this is one of the tests that it runs",
    "docs/joint-diffusion.md": "test_joint_commands.py trains and decodes with these",
    "docs/how-to/given-words.md": "tests/decoding/test_given_words.py has all its options",
    "docs/how-to/examples.md": "test_examples.py runs every stage",
    "docs/how-to/watch-training.md": "test_training.py trains with these, and the curve is below",
    "docs/migrating.md": "test_reference_commands.py has checkpoints and records of the authors'",
}
# options that make each command small enough, appended to it
TINY = "--encoder-layers 1 --decoder-layers 1 --max-update 5 --warmup-updates 1 --num-workers 0"
TINY_DIFFUSION = """
    --model-dim 32 --latent-dim 16 --encoder-attention-heads 2 --decoder-attention-heads 2
    --encoder-ffn-embed-dim 32 --decoder-ffn-embed-dim 32
"""
TINY_TEACHER = "--encoder-embed-dim 16 --decoder-embed-dim 16 --save-interval-updates 1"
TINY_START = "--model-dim 16 --latent-dim 16"  # else as the teacher of the page
TINY_HYDRA = """
    common.cpu=true ++model.model_dim=32 ++model.latent_dim=16 ++model.encoder_layers=1
    ++model.decoder_layers=1 optimization.max_update=2 lr_scheduler.warmup_updates=1
"""
SMALL = {
    "fairseq-preprocess": "--workers 1",
    "fairseq-generate": "--cpu",
    "fairseq-validate": "--cpu",
    "fairseq-interactive": "--cpu",
    "fairseq-hydra-train": TINY_HYDRA,
    "fairseq-train": f"{TINY} {TINY_DIFFUSION} --cpu",
    "torchrun": f"{TINY} {TINY_DIFFUSION} --cpu",
    "difformer prepare": "--workers 1",
    "difformer tune": "--sentences 4 --max-trials 2 --repeats 1 --precisions fp32 --cpu",
    "difformer bench": "--arch difformer_tiny --repetitions 1 --rows engine --cpu",
}
TUTORIAL_CORPUS = ("1, 40000, 500, 500", "1, 200, 21, 21")  # the sizes of what is written there
# programs that change the machine, or run what other tests run (tests/docs says which)
LEFT_OUT = {"pip", "make"}


def smaller(words):
    """The words of a command with what makes it small enough for a test."""
    words = [word.replace(*TUTORIAL_CORPUS) for word in words]
    program = " ".join(words[:2]) if words[0] == "difformer" else words[0]
    options = SMALL.get(program, "")
    if program == "fairseq-train" and "translation" in words:
        options = f"{TINY} {TINY_TEACHER} --cpu"
    if "--init-from-teacher" in words:
        options = f"{TINY} {TINY_START} --cpu"
    if program == "difformer bench":
        decode = "--sentences 2 --steps 1 --beams 1 --batch-size 1"
        options += f" {decode}" if "decode" in words else " --updates 1 --max-tokens 512"
    if "--against" in words:
        options = "--repetitions 1 --sentences 4 --steps 1 --batch-size 2 --cpu"
    if "--fit-rerank" in words:
        options = "--sentences 4 --cpu"
    if "--decoding-precision" in words:  # of a GPU, and slower on this CPU
        options += " --force-precision"
    if "--show" in words:
        options = ""
    return [word for word in words if word != "--fp16"] + options.split()


@pytest.fixture
def workplace(corpus, trained, teacher, tmp_path):
    """A folder with what the pages' commands take for granted."""
    (tmp_path / "data-bin").symlink_to(corpus.joined)
    (tmp_path / "teacher.pt").symlink_to(teacher)
    (tmp_path / "text").symlink_to(corpus.text)
    shutil.copy(corpus.codes, tmp_path / "codes")
    (tmp_path / "reference").mkdir()
    (tmp_path / "raw").mkdir()
    (tmp_path / "my-text").symlink_to(corpus.raw)
    shutil.copy(corpus.raw / "test.de", tmp_path / "new.de")
    shutil.copy(corpus.raw / "test.en", tmp_path / "hyp.en")
    names = {"train": "train", "valid": "val", "test": "test_2016_flickr"}
    for path in corpus.raw.iterdir():
        split, lang = path.name.split(".")
        shutil.copy(path, tmp_path / "raw" / f"{names[split]}.{lang}")
        if split == "test":
            shutil.copy(path, tmp_path / "reference")
    return tmp_path


@pytest.fixture(scope="session")
def kept(corpus, tmp_path_factory):
    """The folder of a training that has kept several checkpoints."""
    folder = tmp_path_factory.mktemp("kept") / "checkpoints"
    train = ["fairseq-train", corpus.joined, *TASK]
    train += ["--arch", "difformer_paper_tiny", "--criterion", "difformer_loss"]
    train += [*f"{SIZES} {OPTIMISER}".split(), "--save-interval-updates", 1, "--max-update", 3]
    train.remove("--no-epoch-checkpoints")
    succeed(folder.parent, *train, "--save-dir", folder)
    return folder


def copy_checkpoints(kept, corpus, folder):
    """Copy the checkpoints, with what training puts beside them if `difformer prepare` made it."""
    checkpoints = shutil.copytree(kept, folder / "checkpoints")
    for path in corpus.joined.glob("dict.*.txt"):
        shutil.copy(path, checkpoints)
    pipeline.save(pipeline.load(corpus.text), checkpoints, corpus.codes)


def run_page(page, folder):
    """Run the commands of a page in a folder, in their order.

    Returns:
        for each command that ran, the command and its Outcome
    """
    outcomes = []
    with contextlib.chdir(folder):
        for command in commands(PAGES[page]):
            words = [word.replace("$PWD", str(folder)) for word in smaller(command.words)]
            if words[0] == "torchrun":
                words[words.index("fairseq-train")] = str(BIN / "fairseq-train")
            if words[0] in LEFT_OUT:
                continue
            if words[0] in FAIRSEQ or words[0] == "difformer" and not command.piped:
                outcome = succeed(folder, *words)
            else:
                text = shlex.join(words)
                if command.piped:
                    text = f"{command.line.rpartition('|')[0]} | {text}"
                outcome = shell("bash", "-c", text, cwd=folder, **command.environment)
                assert outcome.code == 0, outcome.err[-3000:]
            if command.output:
                (folder / command.output).write_text(outcome.out, "utf-8")
            outcomes.append((command, outcome))
    return outcomes


@pytest.mark.parametrize("page", RUN)
def test_the_commands_of_a_page_run(page, workplace, kept, corpus):
    """None loses a sentence, and what is the same everywhere is printed as the page has it."""
    trains_here = re.search(r"save.dir[ =](\$PWD/)?checkpoints\b", PAGES[page])
    if not trains_here:
        copy_checkpoints(kept, corpus, workplace)
    if page == "README.md":
        (workplace / "data-bin").unlink()
    if page == "docs/tutorial.md":
        shutil.rmtree(workplace / "raw")
    if page == "docs/decoding.md":
        (workplace / "demo-run").symlink_to(workplace)
    (workplace / "examples").symlink_to(REPOSITORY / "examples")
    for language, content in blocks(PAGES[page]):
        if language == "toml" and content.startswith("# "):  # the name of the file
            (workplace / content.split()[1]).write_text(content, "utf-8")
    outcomes = run_page(page, workplace)
    for command, outcome in outcomes:
        if command.words[0] == "fairseq-generate":
            assert len(outcome.translations()) == len(lines(corpus.raw / "test.de"))
        if command.words[:2] == ["difformer", "factor"] and "--vocab-size" in command.words:
            assert f"```text\n{outcome.out}```" in PAGES[page]
        for option in ("--plot", "--html", "--history-file", "--out", "--output"):
            if option in command.words:
                assert (workplace / command.words[command.words.index(option) + 1]).exists()
    assert outcomes


def test_every_page_with_commands_is_run_or_parsed():
    names = {getattr(page, "values", [page])[0] for page in RUN}
    assert names.isdisjoint(PARSED)
    assert names | set(PARSED) == {page for page, text in PAGES.items() if commands(text)}


def test_the_page_about_translating_does_so_from_python(corpus, kept, tmp_path):
    copy_checkpoints(kept, corpus, tmp_path)
    (code,) = [c for kind, c in blocks(PAGES["docs/how-to/translate.md"]) if kind == "python"]
    code = code.replace("translator.translate", "out = translator.translate")
    outcome = shell("python", "-c", f"{code}\nprint(len(out), type(out[0]))", cwd=tmp_path)
    assert outcome.code == 0, outcome.err[-2000:]
    assert outcome.out.splitlines()[-1] == "1 <class 'str'>"


@pytest.mark.slow
def test_the_page_for_fairseq_users_translates_from_python(corpus, trained, tmp_path):
    (tmp_path / "checkpoints").mkdir()
    shutil.copy(trained.checkpoint, tmp_path / "checkpoints" / "checkpoint_best.pt")
    (tmp_path / "data-bin").symlink_to(corpus.joined)
    shutil.copy(corpus.codes, tmp_path / "codes")
    (code,) = [code for kind, code in blocks(PAGES["docs/fairseq-users.md"]) if kind == "python"]
    code = code.replace("translator.translate", "out = translator.translate")
    outcome = shell("python", "-c", f"{code}\nprint(len(out), type(out[0]))", cwd=tmp_path)
    assert outcome.code == 0, outcome.err[-2000:]
    assert outcome.out.splitlines()[-1] == "1 <class 'str'>"


def test_the_learning_curve(trained, tmp_path):
    (tmp_path / "train.log").write_text(trained.log, "utf-8")
    table = shell("python", REPOSITORY / "scripts" / "learning_curve.py", tmp_path / "train.log")
    assert table.code == 0, table.err
    header, _, *rows = table.out.splitlines()
    assert header.split(" | ")[0] == "| num_updates" and len(rows) >= 1
    assert rows[-1].startswith("| 60 |") and " - " not in rows[-1]
    (tmp_path / "other.log").write_text(trained.log, "utf-8")
    logs = ["one=" + str(tmp_path / "train.log"), str(tmp_path / "other.log")]
    script = ["python", REPOSITORY / "scripts" / "learning_curve.py", *logs]
    drawn = shell(*script, "--plot", tmp_path / "curve.svg", "--columns", "bleu", "loss")
    assert drawn.code == 0, drawn.err
    picture = (tmp_path / "curve.svg").read_text("utf-8")
    assert all(f"<!-- {label} -->" in picture for label in ("one", logs[1], "bleu", "loss"))


@pytest.mark.slow  # the quick test is tests/bench/test_by_minutes.py
def test_bleu_by_minutes(trained, corpus, tmp_path):
    """On a log and an output of fairseq's commands."""
    (tmp_path / "train.log").write_text(trained.log, "utf-8")
    command = ["fairseq-generate", corpus.joined, *TASK, "--path", trained.checkpoint]
    outcome = succeed(tmp_path, *command, "--decoding-steps", 2, "--remove-bpe")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "checkpoint_last_60.out").write_text(outcome.out, "utf-8")
    script = REPOSITORY / "benchmarks" / "by_minutes.py"
    table = shell("python", script, f"ours={tmp_path / 'train.log'}:{tmp_path / 'out'}")
    assert table.code == 0, table.err
    assert re.fullmatch(r"\| 60 \| \d+\.\d \| \d+\.\d\d \|", table.out.splitlines()[2])


@pytest.mark.slow
def test_the_rescaling_example(tmp_path):
    """Some of its rows on a few sentences, and the probe of two."""
    script = REPOSITORY / "examples" / "rescaling" / "run.sh"
    command = ["bash", script, tmp_path / "out", "--max-update", 2, "--max-tokens", 512]
    settings = {
        "ROWS": "sqrt-none sqrt-15 sqrt-15-rounding sqrt-15-vlb",
        "SENTENCES": "150",
        "HELD_OUT": "9",
        "OMP_NUM_THREADS": "1",
    }
    outcome = shell(*command, **settings)
    assert outcome.code == 0, outcome.out[-2000:] + outcome.err[-2000:]
    rows = re.findall(
        r"^(\S+) +F ([\d.]+) +DGS ([\d.]+) +BLEU [\d.]+ with 1 candidate, [\d.]+ with 3 x 2$",
        outcome.out,
        re.MULTILINE,
    )
    assert [name for name, *_ in rows] == settings["ROWS"].split()
    assert rows[0][1] == "1" and float(rows[1][1]) > 1
    assert float(rows[1][2]) < 0.2 < float(rows[0][2])
    assert "BLEU, nrefs:1" in outcome.out and (tmp_path / "out" / "probe.png").exists()
    log = tmp_path / "out" / "sqrt-15" / "train.log"
    assert log.read_text("utf-8").count("rescaling factor ") >= 1
