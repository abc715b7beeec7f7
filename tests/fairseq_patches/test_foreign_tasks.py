"""A diffusion model needs its task, whichever command is given and whatever was forgotten."""

import sys
from argparse import Namespace

import pytest
import torch
from fairseq import checkpoint_utils, criterions, models, options
from fairseq.models import ARCH_MODEL_REGISTRY
from fairseq.tasks.translation import TranslationConfig, TranslationTask

import difformer_plugin
from difformer_plugin.errors import UserError
from difformer_plugin.fairseq_patches.foreign_tasks import check_model
from difformer_plugin.families.contract import FAMILIES, is_family

difformer_plugin.register()

from difformer_plugin.tasks.diffusion_translation import DiffusionTranslationTask  # noqa: E402

OURS = ["--task", "diffusion_translation"]
DIFFUSION = sorted(name for name, kind in ARCH_MODEL_REGISTRY.items() if is_family(kind))
FOREIGN = ["transformer", "cmlm_transformer", "lstm", "transformer_lm", "wav2vec2"]
CRITERIA = sorted({kind.criterion for kind in FAMILIES})


@pytest.fixture
def translation(task):
    """fairseq's default task."""
    return TranslationTask(TranslationConfig(), task.source_dictionary, task.target_dictionary)


def parse(parser, *arguments):
    return options.parse_args_and_arch(parser, ["data", *arguments])


@pytest.mark.parametrize("arch", DIFFUSION)
def test_no_other_task_builds_a_diffusion_model(translation, arch):
    with pytest.raises(UserError, match="--task diffusion_translation, not --task translation"):
        models.build_model(Namespace(arch=arch), translation)


@pytest.mark.parametrize("criterion", CRITERIA)
def test_no_other_task_builds_a_criterion_of_diffusion(translation, criterion):
    with pytest.raises(UserError, match=f"{criterion} needs --task diffusion_translation"):
        criterions.build_criterion(Namespace(criterion=criterion), translation)


def test_other_models_and_criteria_are_built_as_before(translation):
    criterion = criterions.build_criterion(
        Namespace(criterion="cross_entropy", sentence_avg=False), translation
    )
    assert type(criterion).__name__ == "CrossEntropyCriterion"
    for arch in FOREIGN:
        check_model(arch, TranslationTask)


def test_a_script_may_build_a_model_for_something_that_is_no_task_of_fairseqs(task):
    check_model("difformer", type(task))


@pytest.mark.parametrize("arch", FOREIGN)
def test_our_task_trains_no_other_model(arch):
    with pytest.raises(UserError, match="--task diffusion_translation cannot train"):
        check_model(arch, DiffusionTranslationTask)


@pytest.mark.parametrize("arch", FOREIGN)
def test_our_task_loads_encoder_decoders_as_teachers_and_nothing_else(arch):
    if arch in ("transformer", "cmlm_transformer", "lstm"):
        check_model(arch, DiffusionTranslationTask, trained=True)
    else:
        with pytest.raises(UserError, match="cannot use a .* must be of a diffusion model"):
            check_model(arch, DiffusionTranslationTask, trained=True)


# the command line


@pytest.mark.parametrize("task", [[], ["--task", "translation_lev"], ["--task", "masked_lm"]])
def test_training_is_refused_before_any_data_are_read(task):
    arguments = ["--arch", "difformer_tiny", "--criterion", "difformer_loss", *task]
    with pytest.raises(UserError, match="a Difformer .* needs --task diffusion_translation"):
        parse(options.get_training_parser(), *arguments)
    with pytest.raises(UserError, match="cannot train a TransformerLanguageModel"):
        parse(options.get_training_parser(), *OURS, "--arch", "transformer_lm")


@pytest.mark.parametrize("parser", [options.get_generation_parser, options.get_training_parser])
def test_an_option_of_the_task_names_it(parser, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["fairseq-generate"])
    more = ["--arch", "transformer"] if parser is options.get_training_parser else []
    with pytest.raises(UserError, match="--decoding-steps, --use-ema belong to --task diffusion_"):
        parse(parser(), *more, "--decoding-steps=5", "--use-ema", "--decoding-steps", "4")


def test_an_option_of_nobody_is_left_to_the_parser(capsys):
    with pytest.raises(SystemExit):
        parse(options.get_generation_parser(), "--decoding-stepps", "5")
    assert "unrecognized arguments: --decoding-stepps 5" in capsys.readouterr().err


def test_decoding_has_an_arch_that_it_does_not_use():
    assert parse(options.get_generation_parser(), *OURS, "--path", "x").decoding_steps == 20


def test_validation_asks_for_the_task_that_it_needs():
    with pytest.raises(UserError, match="--task is missing: .* --task diffusion_translation"):
        parse(options.get_validation_parser(), "--path", "x", "--max-tokens", "9")


# checkpoints


@pytest.mark.parametrize(
    "task, model, reported",
    [
        ("translation", "difformer", True),
        ("diffusion_translation", "difformer", False),
        ("translation", "transformer", False),
        ("of another plug-in", "difformer", False),
    ],
)
@pytest.mark.parametrize("kind", [dict, lambda **named: Namespace(**named)])
def test_a_checkpoint_of_another_task_is_reported(tmp_path, caplog, task, model, reported, kind):
    path = str(tmp_path / "checkpoint.pt")
    state = {"args": None, "model": {}, "extra_state": {"train_iterator": {"epoch": 1}}}
    state["optimizer_history"] = [{"num_updates": 0, "lr_scheduler_state": {}}]
    state["cfg"] = {"task": {"_name": task}, "model": kind(_name=model)}
    torch.save(state, path)
    checkpoint_utils.load_checkpoint_to_cpu(path)
    assert ("was trained with --task translation" in caplog.text) == reported
