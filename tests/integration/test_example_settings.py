"""The variables of examples/: what they change, and what is refused before anything runs."""

import os

import pytest
from harness import BIN, EXAMPLES, shell
from test_examples import commands


@pytest.mark.parametrize(
    "settings, visible",
    [
        ({"GPUS": "0"}, ""),
        ({"GPUS": "2"}, "0,1"),
        ({"GPUS": "2", "CUDA_VISIBLE_DEVICES": "5,3,1"}, "5,3"),
    ],
)
def test_a_training_sees_as_many_gpus_as_it_is_given(tmp_path, settings, visible):
    """fairseq-train takes all that it sees; here it prints them."""
    program = tmp_path / "bin" / "fairseq-train"
    program.parent.mkdir()
    program.write_text('#!/bin/bash\necho "sees <$CUDA_VISIBLE_DEVICES>"\n')
    program.chmod(0o755)
    for folder in ("difformer", "distilled"):
        (tmp_path / "out" / folder).mkdir(parents=True)
    unset = [] if "CUDA_VISIBLE_DEVICES" in settings else ["-u", "CUDA_VISIBLE_DEVICES"]
    command = ["env", *unset, "bash", EXAMPLES / "multi30k" / "run.sh", "raw", tmp_path / "out"]
    path = os.pathsep.join([str(program.parent), str(BIN), os.environ["PATH"]])
    outcome = shell(*command, "train", PATH=path, **settings)
    assert outcome.code == 0, outcome.err
    assert f"sees <{visible}>" in outcome.out.splitlines()


def test_mistakes_are_reported(tmp_path):
    script = EXAMPLES / "multi30k" / "run.sh"
    outcome = shell("bash", script, tmp_path)
    assert outcome.code == 2 and outcome.err.startswith("usage: ")
    outcome = shell("bash", script, tmp_path, tmp_path, "training")
    assert outcome.code == 2 and "no stage training; there are prepare" in outcome.err
    outcome = shell("bash", script, tmp_path / "nowhere", tmp_path / "out", "prepare")
    assert outcome.code == 2 and "nowhere: no such folder" in outcome.err


@pytest.mark.parametrize(
    "stage, settings, said",
    [
        ("prepare train", {}, "no stage prepare train"),
        ("train", {"DATA": "Raw"}, "DATA=Raw: give raw or distilled"),
        ("train", {"GPUS": "-1"}, "GPUS=-1: give a number of GPUs"),
        ("train", {"GPUS": ""}, "GPUS=: give a number of GPUs"),
        ("train", {"GPUS": "2", "CUDA_VISIBLE_DEVICES": "3"}, "GPUS=2, but CUDA_VISIBLE_DEVICES"),
        ("train_joint", {"SYSTEMS": "diffuseq foo"}, "SYSTEMS=foo: no such system; there are diff"),
        ("train_discrete", {"FAMILIES": "mdlm foo"}, "FAMILIES=foo: no such family; there are"),
        ("evaluate_discrete", {"K": "5 x"}, "K=x: give numbers of steps"),
        ("train_teacher", {"DRY_RUN": "0"}, "data-bin: not there; run the stage prepare first"),
        ("distill", {}, "teacher.pt: not there; run the stage train_teacher first"),
        ("train", {}, "distilled: not there; run the stage distill first"),
        ("train_cmlm", {"DATA": "raw"}, "data-bin: not there; run the stage prepare first"),
        ("average", {}, "difformer: not there; run the stage train first"),
        ("evaluate", {}, "difformer.pt: not there; run the stage average first"),
        ("evaluate_joint", {}, "diffuseq.pt: not there; run the stage train_joint first"),
        ("evaluate_discrete", {}, "mdlm.pt: not there; run the stage train_discrete first"),
    ],
)
def test_settings_and_the_order_of_stages_are_checked(tmp_path, stage, settings, said):
    script = EXAMPLES / "multi30k" / "run.sh"
    settings = {"GPUS": "0"} | settings
    outcome = shell("bash", script, tmp_path, tmp_path / "out", stage, **settings)
    assert outcome.code == 2 and said in outcome.err, outcome.err
    assert "$ fairseq" not in outcome.out


def test_generate_is_for_diffusion_models(tmp_path):
    """fairseq's own models do not know the options of their decoding."""
    for model in ("teacher", "cmlm"):
        (tmp_path / f"{model}.pt").touch()
    found = commands("multi30k", tmp_path, tmp_path, "evaluate", GENERATE="--collapse-repeats")
    for words in found:
        if words[0] == "fairseq-generate":
            ours = words[words.index("--task") + 1] == "diffusion_translation"
            assert ("--collapse-repeats" in words) == ours
            assert ("--required-batch-size-multiple" in words) != ours
