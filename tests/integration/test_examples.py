"""The examples: every stage of the small one runs, and the options of the large ones exist."""

import gzip
import json
import os
import shlex
import subprocess
from pathlib import Path

import pytest
from fairseq import options
from harness import EXAMPLES, lines, logged, shell, succeed

from difformer_plugin.data import recipe
from difformer_plugin.data.synthetic.grammar import write_corpus

BASELINES = ["train_cmlm", "train_levenshtein"]
STAGES = ["prepare", "train_teacher", "distill", "train", "average", *BASELINES, "evaluate"]
DISCRETE = ["train_discrete", "evaluate_discrete"]
JOINT = ["train_joint", "evaluate_joint"]
VARIANTS = ["blind", "padded", "expected", "published"]
SYSTEMS = ["diffuseq", *(f"diffuseq-{name}" for name in VARIANTS), "diffusion-lm"]
FAMILIES = ["mdlm", "d3pm", "d3pm-uniform", "d3pm-nearest", "sedd", "sedd-uniform", "flexible"]
TRAIN = "fairseq-train"
FOLDERS = sorted(path.parent.name for path in EXAMPLES.glob("*/run.sh"))
FROM_RAW_TEXT = [name for name in FOLDERS if name in recipe.available()]


def commands(name, raw, out, *stages, **environment):
    """The commands of some stages, as printed by DRY_RUN=1, each as a list of words."""
    script = EXAMPLES / name / "run.sh"
    settings = {"DRY_RUN": "1", "GPUS": "0"} | environment
    outcome = shell("bash", script, raw, out, *stages, **settings)
    assert outcome.code == 0, outcome.err
    printed = [line[2:] for line in outcome.out.splitlines() if line.startswith("$ ")]
    return [shlex.split(line) for line in printed]


def test_every_recipe_has_an_example():
    assert set(FROM_RAW_TEXT) == set(recipe.available())


SMALL = "--encoder-layers 1 --decoder-layers 1 --max-tokens 400 --num-workers 0"
MINIATURE = {
    "PREPARE": "--workers 1",
    "TRAIN_TEACHER": f"{SMALL} --max-update 6 --save-interval-updates 3",
    "TRAIN": f"{SMALL} --max-update 4 --max-epoch 1",
    "TRAIN_CMLM": f"{SMALL} --max-update 4",
    "TRAIN_LEVENSHTEIN": f"{SMALL} --max-update 4",
    "TRAIN_DISCRETE": f"{SMALL} --max-update 4 --max-epoch 1",
    "TRAIN_JOINT": "--decoder-layers 2 --max-tokens 400 --num-workers 0 --max-update 4 "
    "--max-epoch 1",
    "FAMILIES": "flexible",
    "SYSTEMS": "diffuseq-padded",
    "K": "2",
    "EVALUATE": "--bootstrap-samples 50",
    "TEACHER_AVERAGE": "1",
    "CMLM_AVERAGE": "1",
    "LEVENSHTEIN_AVERAGE": "1",
    "AVERAGE_BEST": "1",
}


@pytest.mark.slow
def test_all_stages_of_multi30k_in_miniature(tmp_path):
    raw, out = tmp_path / "raw", tmp_path / "out"
    raw.mkdir()
    write_corpus(tmp_path / "text", 1, 160, 9, 11)
    for split, name in (("train", "train"), ("valid", "val"), ("test", "test_2016_flickr")):
        for lang in ("de", "en"):
            with gzip.open(raw / f"{name}.{lang}.gz", "wb") as file:
                file.write((tmp_path / "text" / f"{split}.{lang}").read_bytes())
    outputs = {}
    for stage in STAGES + DISCRETE + JOINT:  # later stages depend on the files of earlier ones
        for command in commands("multi30k", raw, out, stage, **MINIATURE):
            if command[0] == "rm":
                Path(command[-1]).unlink(missing_ok=True)
                continue
            if command[0] == "python":
                assert shell(*command).code == 0
                continue
            target = Path(command[-1]) if command[-2] == ">" else None
            done = succeed(tmp_path, *(command[:-2] if target else command))
            outputs[stage] = outputs.get(stage, "") + done.out
            if target:
                target.write_text(done.out, "utf-8")
    assert "train         160 pairs of 160 lines" in outputs["prepare"]
    assert "160" in outputs["distill"]
    discrete = ("flexible-k2-b1", "flexible-k2-b10")
    baselines = ("cmlm", "levenshtein", "teacher")
    joint = [f"diffuseq-padded-{name}" for name in ("b1", "b10", "ar")]
    difformer = ("difformer-b1", "difformer-b10", "difformer-few")
    for system in (*difformer, *baselines, *discrete, *joint):
        translated = [line for line in lines(out / f"{system}.out") if line.startswith("H-")]
        assert len(translated) == 11
    assert outputs["evaluate"].count("nrefs:1|") >= 4
    assert outputs["evaluate_discrete"].count("nrefs:1|") >= 3
    assert outputs["evaluate_joint"].count("nrefs:1|") >= 4
    (row,) = logged((out / "flexible.bound").read_text("utf-8"), "test")
    assert float(row["bound"]) > 0
    history = [json.loads(line) for line in lines(out / "history.jsonl")]
    assert {entry["id"] for entry in history} == set(range(11))
    assert "<svg" in (out / "report.html").read_text("utf-8")


SIZED = [("multi30k", "medium"), ("debian-descriptions", "medium")]


@pytest.mark.parametrize("name, size", [(name, "small") for name in FROM_RAW_TEXT] + SIZED)
def test_the_commands_of_every_example_exist(name, size, tmp_path):
    """fairseq and difformer parse them."""
    from difformer_plugin import register
    from difformer_plugin.cli.main import build_parser

    register()
    parsers = {
        "fairseq-train": options.get_training_parser,
        "fairseq-generate": options.get_generation_parser,
        "fairseq-validate": options.get_validation_parser,
    }
    for model in ("teacher", "cmlm", "levenshtein"):
        (tmp_path / f"{model}.pt").touch()
    settings = {"FAMILIES": " ".join(FAMILIES), "SYSTEMS": " ".join(SYSTEMS), "SIZE": size}
    stages = [*STAGES, *DISCRETE, *JOINT]
    for program, *arguments in commands(name, tmp_path, tmp_path, *stages, **settings):
        if program == "rm":
            assert arguments == ["-f", str(tmp_path / "history.jsonl")]
        elif program == "difformer":
            parsed = build_parser().parse_args(arguments)
            assert parsed.run
        elif program == "python":
            script, teacher, start, *training = arguments
            assert Path(script).is_file() and teacher == str(tmp_path / "teacher.pt")
            options.parse_args_and_arch(options.get_training_parser(), training)
        else:
            arguments = arguments[:-2] if arguments[-2] == ">" else arguments
            parser = parsers[program]()
            parsed = options.parse_args_and_arch(parser, arguments)
            assert parsed.data == str(tmp_path / "data-bin") or "distilled" in parsed.data


def test_the_families_of_discrete_diffusion_are_all_that_there_are(tmp_path):
    """Each name stands for its pair, in the Difformer's size, and two of them live side by side."""
    from difformer_plugin.families.tokens.config import OBJECTIVES

    found, folders = [], []
    for train in commands("qqp", tmp_path, tmp_path, *DISCRETE, FAMILIES=" ".join(FAMILIES)):
        if train[0] == "fairseq-train":
            values = dict(zip(train, train[1:]))
            found.append((values["--objective"], values["--process"]))
            folders.append(Path(values["--save-dir"]).name)
            assert values["--arch"] == "discrete_diffusion_base"
            nearest = values.get("--neighbour-embeddings") == str(tmp_path / "teacher.pt")
            assert nearest == (values["--process"] == "nearest")
    defined = [(name, process) for name, own in OBJECTIVES.items() for process in own.processes]
    assert sorted(found) == sorted(defined)
    assert folders == FAMILIES


@pytest.mark.parametrize("gpus", [0, 1, 2, 3, 8])
@pytest.mark.parametrize(
    "name, tokens", [("wmt14-en-de", 65536), ("iwslt14-de-en", 8192), ("qqp", 8192)]
)
def test_batches_have_as_many_tokens_as_in_the_paper(tmp_path, name, tokens, gpus):
    """Table 21, on any number of devices, up to rounding."""
    (train,) = commands(name, tmp_path, tmp_path, "train", GPUS=str(gpus))
    values = dict(zip(train, train[1:]))
    total = int(values["--max-tokens"]) * int(values["--update-freq"]) * max(1, gpus)
    assert tokens - 30 < total <= tokens and int(values["--max-tokens"]) <= 8192
    assert ("--cpu" in train) == (gpus == 0)


@pytest.mark.parametrize("name", ["multi30k", "iwslt14-de-en", "wmt14-en-de", "qqp"])
def test_baselines_have_the_positions_and_the_initialisation_of_difformer(name, tmp_path):
    """Otherwise these would explain a part of the difference to them."""
    from difformer_plugin import register

    register()
    learned = ("encoder_learned_pos", "decoder_learned_pos", "apply_bert_init")
    for stage in ("train", "train_discrete", "train_joint", *BASELINES):
        words = next(x for x in commands(name, tmp_path, tmp_path, stage) if x[0] == TRAIN)
        parsed = options.parse_args_and_arch(options.get_training_parser(), words[1:])
        # joint sequences have no encoder
        own = learned[stage == "train_joint" :]
        assert [getattr(parsed, option, False) for option in own] == [name != "multi30k"] * len(own)


@pytest.mark.parametrize("size", ["small", "medium"])
def test_diffusion_starts_from_a_teacher_of_the_same_size(size, tmp_path):
    """Where there is one; INIT= turns it off. The teacher's sizes are those of the model."""

    def options(stage, name="multi30k", out=tmp_path / "o u t", **environment):
        command, *_ = commands(name, tmp_path, out, stage, SIZE=size, **environment)
        return dict(zip(command, command[1:]))

    teacher = options("train_teacher", out=made(tmp_path))
    for stage in ("train", "train_discrete"):
        model = options(stage)
        assert model["--init-from-teacher"] == str(tmp_path / "o u t" / "teacher.pt")
        assert "--init-from-teacher" not in options(stage, INIT="")
        assert "--init-from-teacher" not in options(stage, DATA="raw")
        assert options(stage, INIT="--init-from-teacher x")["--init-from-teacher"] == "x"
        has_extras = {"--soft-labels", "--clean-tokens", "--noises-per-sentence"} <= set(model)
        assert has_extras == (stage == "train")
        for off in ({"INIT": ""}, {"EXTRAS": ""}, {"DATA": "raw"}):
            assert "--soft-labels" not in options(stage, **off)
        for side in ("encoder", "decoder"):
            assert model["--model-dim"] == model["--latent-dim"] == teacher[f"--{side}-embed-dim"]
            for name in ("layers", "ffn-embed-dim", "attention-heads"):
                assert model[f"--{side}-{name}"] == teacher[f"--{side}-{name}"]
    joint = options("train_joint")
    assert joint["--init-from-teacher"] == str(tmp_path / "o u t" / "teacher.pt")
    assert joint["--decoder-ffn-embed-dim"] == teacher["--decoder-ffn-embed-dim"]
    layers = [int(teacher[f"--{side}-layers"]) for side in ("encoder", "decoder")]
    assert int(joint["--decoder-layers"]) == sum(layers) == 2 * layers[0]
    published = {"SYSTEMS": "diffuseq-published"}
    assert options("train_joint", **published)["--init-parts"] == "embeddings"
    assert "--init-parts" not in options("train_joint", **published, INIT="")
    assert "--init-parts" not in joint
    assert "--init-from-teacher" not in options("train", name="iwslt14-de-en")


@pytest.mark.parametrize("stage", BASELINES)
def test_baselines_start_from_the_teacher_where_difformer_does(stage, tmp_path):
    start, train, average = commands("multi30k", "raw", made(tmp_path), stage)
    assert start[0] == "python" and train[0] == TRAIN and average[:2] == ["difformer", "average"]
    assert train[train.index("--finetune-from-model") + 1] == start[3]
    assert start[2] == str(tmp_path / "made" / "teacher.pt")
    for name, settings in (("multi30k", {"INIT": ""}), ("iwslt14-de-en", {})):
        train, _ = commands(name, "raw", tmp_path / "made", stage, **settings)
        assert train[0] == TRAIN and "--finetune-from-model" not in train


def made(folder):
    """A folder with a teacher, which is not averaged again."""
    (folder / "made").mkdir()
    (folder / "made" / "teacher.pt").touch()
    return folder / "made"


def test_own_text_has_the_recipe_of_multi30k(tmp_path):
    """Only the corpus, the languages and the number of updates differ."""

    def printed(name, **environment):
        found = commands(name, tmp_path, tmp_path, *STAGES, **environment)
        return [" ".join(words) for words in found]

    own = printed("plain", SOURCE="fr", TARGET="cs", UPDATES="70")
    reference = printed("multi30k", SOURCE="fr", TARGET="cs")
    assert "prepare plain" in own[0] and "--source-lang fr --target-lang cs" in own[0]
    renamed = [line.replace("multi30k", "plain") for line in reference]
    assert own == [line.replace("--max-update 3000", "--max-update 70") for line in renamed]


def test_sizes_and_precisions(tmp_path):
    def train(**environment):
        command = commands("multi30k", tmp_path, tmp_path, "train", **environment)[0]
        return dict(zip(command, command[1:])), command

    assert train()[0]["--model-dim"] == "128" and train(SIZE="medium")[0]["--model-dim"] == "256"
    assert "--cpu" in train()[1] and "--fp16" in train(GPUS="1")[1]
    chosen = train(GPUS="1", PRECISION="--bf16")[1]
    assert "--bf16" in chosen and "--fp16" not in chosen
    script = EXAMPLES / "multi30k" / "run.sh"
    outcome = shell("bash", script, tmp_path, tmp_path, "train", SIZE="huge")
    assert outcome.code == 2 and "SIZE=huge: give small or medium" in outcome.err


STUB = """#!/usr/bin/env bash
name=$(basename "$0")
[ "$name $1" != "difformer user-dir" ] || { echo plugin; exit; }
printf '%s' "$name" >>"$CALLS"; printf ' [%s]' "$@" >>"$CALLS"; echo >>"$CALLS"
previous=
for word in "$@"; do
  case "$previous" in
    --save-dir) mkdir -p "$word" ;;
    --out) [[ "$name $1" == *prepare ]] && mkdir -p "$word/data-bin" || touch "$word" ;;
  esac
  previous=$word
done
[ "$name $previous" != "$FAIL" ]
"""


def test_the_script_with_spaces_in_paths_and_run_twice(tmp_path):
    """All stages with stubs for the programs: order, logs, files and skipped stages."""
    stubs, out, calls = tmp_path / "bin", tmp_path / "o u t", tmp_path / "calls"
    stubs.mkdir()
    for program in ("difformer", "fairseq-train", "fairseq-generate", "python"):
        (stubs / program).write_text(STUB)
        (stubs / program).chmod(0o755)

    def run(fail="", **environment):
        calls.write_text("")
        path = {"PATH": f"{stubs}:{os.environ['PATH']}", "CALLS": str(calls), "FAIL": fail}
        script = ["bash", EXAMPLES / "multi30k" / "run.sh", tmp_path / "r a w", out]
        done = subprocess.run(
            script, env={**os.environ, **path, "GPUS": "0", **environment}, capture_output=True
        )
        return done, [line.split(" [")[0:2] for line in lines(calls)]

    done, called = run(fail="fairseq-train --cpu", TRAIN="--cpu")
    assert done.returncode != 0 and called[-1][0] == "fairseq-train"  # in spite of the pipe
    assert not (out / "difformer" / "finished").exists()
    done, called = run()
    assert done.returncode == 0, done.stderr.decode()
    assert [" ".join(part).rstrip("]") for part in called if part[0] == "difformer"] == [
        *("difformer prepare", "difformer distill", "difformer average", "difformer average"),
        *["difformer evaluate"] * 5,
    ]
    assert [part[0] for part in called].count("fairseq-train") == 2  # the teacher was finished
    assert [part[0] for part in called].count("fairseq-generate") == 5
    assert f"[{out}/difformer.pt]" in calls.read_text()
    assert {p.name for p in out.glob("*.out")} == {
        *("difformer-b1.out", "difformer-b10.out", "difformer-few.out"),
        *("cmlm.out", "teacher.out"),
    }
    assert not list(out.glob("*.unfinished"))
    again, called = run()
    assert again.returncode == 0 and "fairseq-train" not in [part[0] for part in called]


def test_without_the_environment_on_the_path(tmp_path):
    """The .venv of the checkout is found; without one, a line says what to do."""
    for folder in ("multi30k", "rescaling"):
        (tmp_path / "examples" / folder).mkdir(parents=True)
    for name in ("environment.sh", "sizes.sh", "stages.sh", "multi30k/run.sh", "rescaling/run.sh"):
        (tmp_path / "examples" / name).write_bytes((EXAMPLES / name).read_bytes())

    def run(name="multi30k"):
        script = ["/bin/bash", tmp_path / "examples" / name / "run.sh", tmp_path, tmp_path / "out"]
        settings = {"PATH": "/usr/bin:/bin", "DRY_RUN": "1", "GPUS": "0"}
        return subprocess.run([*script, "prepare"], env=settings, capture_output=True, text=True)

    for name in ("multi30k", "rescaling"):
        done = run(name)
        assert done.returncode == 2 and "command not found" not in done.stderr
        assert done.stderr.startswith("error: no difformer on the PATH: activate the environment")
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    stub = tmp_path / ".venv" / "bin" / "difformer"
    stub.write_text("#!/bin/sh\necho plugin\n")
    stub.chmod(0o755)
    done = run()
    assert done.returncode == 0, done.stderr
    assert "$ difformer prepare multi30k" in done.stdout
