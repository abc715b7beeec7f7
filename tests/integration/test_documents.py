"""The commands of README.md, examples/ and scripts/ work as they are written there."""

import contextlib
import os
import re
import shlex
import shutil
from pathlib import Path

import pytest
from harness import TASK, USER_DIR, lines, shell, succeed

REPOSITORY = Path(__file__).resolve().parents[2]
README = (REPOSITORY / "README.md").read_text("utf-8")


def readme_command(name, section="## If you know fairseq"):
    """The arguments of a command that stands, indented, in a section of the README."""
    text = README.split(f"\n{section}\n")[1]
    block = re.search(rf"^    {name} data-bin (?:.*\\\n)*.*", text, re.MULTILINE).group()
    text = block.replace("\\\n", " ").replace("$(difformer user-dir)", USER_DIR)
    return shlex.split(text)[1:]


def test_the_readme_has_no_placeholder_left():
    assert re.findall(r"@[A-Z_]+@", README) == []


@pytest.mark.parametrize("section", ["## If you know fairseq", "## Discrete diffusion"])
def test_the_readme_trains_and_generates(section, corpus, tmp_path):
    """The settings of both families, for two updates, on the data-bin of these tests."""
    here = {"data-bin": corpus.joined, "checkpoints": tmp_path}
    train = [here.get(part, part) for part in readme_command("fairseq-train", section)]
    small = ["--encoder-layers", 1, "--decoder-layers", 1, "--max-update", 2, "--cpu"]
    succeed(tmp_path, "fairseq-train", *train, *small)
    generate = [here.get(part, part) for part in readme_command("fairseq-generate", section)]
    generate[generate.index("--path") + 1] = tmp_path / "checkpoint_best.pt"
    outcome = succeed(tmp_path, "fairseq-generate", *generate, "--decoding-steps", 6, "--cpu")
    assert len(outcome.translations()) == len(lines(corpus.raw / "test.de"))


def test_the_readme_translates_from_python(corpus, trained, tmp_path):
    (tmp_path / "checkpoints").mkdir()
    shutil.copy(trained.checkpoint, tmp_path / "checkpoints" / "checkpoint_best.pt")
    (tmp_path / "data-bin").symlink_to(corpus.joined)
    shutil.copy(corpus.codes, tmp_path / "codes")
    code = re.search(r"```python\n(.*?)```", README, re.DOTALL).group(1)
    code = code.replace("translator.translate", "out = translator.translate")
    outcome = shell("python", "-c", f"{code}\nprint(len(out), type(out[0]))", cwd=tmp_path)
    assert outcome.code == 0, outcome.err[-2000:]
    assert outcome.out.splitlines()[-1] == "1 <class 'str'>"


def test_the_readme_lists_every_option():
    outcome = shell("python", REPOSITORY / "scripts" / "options_table.py", "--check")
    assert outcome.code == 0, f"run scripts/options_table.py\n{outcome.err[-2000:]}"


@pytest.mark.slow
def test_the_commands_of_difformer_in_the_readme_run(corpus, trained, tmp_path):
    (tmp_path / "data-bin").symlink_to(corpus.joined)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "checkpoint_best.pt").symlink_to(trained.checkpoint)
    commands = re.findall(r"^    difformer ((?:factor|probe) .*)$", README, re.MULTILINE)
    assert len(commands) == 6
    outputs = {}
    with contextlib.chdir(tmp_path):
        for command in commands:
            outputs[command] = succeed(tmp_path, "difformer", *shlex.split(command)).out
    first, *_ = outputs.values()
    assert f"```\n{first}```" in README
    assert (tmp_path / "schedules.png").exists() and (tmp_path / "probe.png").exists()


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


def test_distilling_in_shards_and_comparing_as_the_readme_does(corpus, model, teacher, tmp_path):
    (tmp_path / "data-bin").symlink_to(corpus.joined)
    (tmp_path / "teacher.pt").symlink_to(teacher)
    (tmp_path / "reference").mkdir()
    shutil.copy(corpus.raw / "test.en", tmp_path / "reference")
    generate = ["fairseq-generate", corpus.joined, *TASK, "--path", model, "--remove-bpe"]
    generate += ["--decoding-steps", 4, "--gen-subset", "test"]
    for name, options in (("one", ()), ("ten", ("--length-beam-size", 3, "--bleu-mbr"))):
        (tmp_path / f"{name}.out").write_text(succeed(tmp_path, *generate, *options).out, "utf-8")
    commands = re.findall(r"^    difformer ((?:distill|evaluate) .*)$", README, re.MULTILINE)
    assert len(commands) == 4
    with contextlib.chdir(tmp_path):
        for command in commands:
            succeed(tmp_path, "difformer", *shlex.split(command))
    assert (tmp_path / "distilled" / "train.de-en.en.idx").exists()
    assert (tmp_path / "report.html").exists()


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


@pytest.mark.skipif(os.name != "posix", reason="make and bash")
def test_the_make_targets_of_the_readme_exist():
    for target in re.findall(r"^    make ([a-z -]+?)(?:  +#.*)?$", README, re.MULTILINE):
        outcome = shell("make", "--dry-run", *target.split(), cwd=REPOSITORY)
        assert outcome.code == 0, outcome.err
