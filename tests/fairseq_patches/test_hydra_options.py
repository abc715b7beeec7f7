"""Configurations of `fairseq-hydra-train` are checked as command lines are."""

import logging

import pytest
from fairseq import models, tasks
from fairseq.dataclass.configs import FairseqConfig
from fairseq.dataclass.initialize import add_defaults
from omegaconf import OmegaConf

import difformer_plugin
from difformer_plugin.errors import UserError
from difformer_plugin.fairseq_patches import checked_options
from difformer_plugin.fairseq_patches.hydra_options import check_config

difformer_plugin.register()


@pytest.fixture(autouse=True)
def fresh_warnings():
    checked_options._warn.cache_clear()


def configuration(*settings, task="diffusion_translation"):
    """What `fairseq-hydra-train` makes of settings such as `dataset.max_tokens=5`."""
    base = {"task": {"_name": task, "data": "nowhere"}, "dataset": {"max_tokens": 512}}
    base["model"] = {"_name": "difformer_tiny"}
    base["optimizer"] = {"_name": "adam", "lr": [0.1]}
    cfg = OmegaConf.merge(
        OmegaConf.structured(FairseqConfig), base, OmegaConf.from_dotlist(list(settings))
    )
    add_defaults(cfg)
    cfg = OmegaConf.create(OmegaConf.to_container(cfg, resolve=True, enum_to_str=True))
    return OmegaConf.merge(cfg, {"job_logging_cfg": {}})


def test_what_the_examples_set_passes(caplog):
    check_config(configuration("common.fp16=true", "checkpoint.patience=3", "task.eval_bleu=true"))
    check_config(configuration("optimizer.adam_betas=[0.9,0.98]", "lr_scheduler.warmup_updates=9"))
    assert not caplog.records


@pytest.mark.parametrize(
    "setting, said",
    [
        ("dataset.num_shards=3", "--num-shards is not available"),
        ("common.model_parallel_size=2", "--model-parallel-size is not available"),
        ("checkpoint.checkpoint_suffix=-b", "--checkpoint-suffix is not available"),
        ("task.load_alignments=true", "--load-alignments is not available"),
        ("distributed_training.ddp_backend=slowmo", "--ddp-backend slowmo needs fairscale"),
        ("optimizer.adam_betas=xx", "--adam-betas must be two numbers"),
        ("optimization.update_freq=[0]", "--update-freq must be a whole number"),
        ("task.eval_bleu_detok=none", "--eval-bleu-detok none: no such tokeniser"),
        ("common.seed=-1", "--seed must lie between"),
        ("dataset.max_tokens=null", "needs --max-tokens or --batch-size"),
    ],
)
def test_what_cannot_work_is_one_line_before_the_data_are_read(setting, said):
    cfg = configuration(setting)
    with pytest.raises(UserError, match=f"^[^\n]*{said}[^\n]*$"):
        tasks.setup_task(cfg.task)


def test_options_without_effect_are_warned_of(caplog):
    cfg = configuration("optimization.sentence_avg=true", "dataset.fixed_validation_seed=3")
    check_config(cfg)
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2
    text = caplog.text
    assert "--sentence-avg" in text and "--fixed-validation-seed" in text


@pytest.mark.parametrize(
    "setting, said",
    [
        ("task.nonsense=1", "nonsense: Key 'nonsense' not in"),
        ("task.decoding_steps=abc", "decoding_steps: Value 'abc'"),
        ("model.model_dim=abc", "model_dim: Value 'abc'"),
    ],
)
def test_an_unknown_key_or_a_wrong_type_is_one_line(setting, said):
    with pytest.raises(UserError, match=f"^{said}[^\n]*$"):
        configuration(setting)


def test_other_tasks_are_left_to_fairseq():
    """Their errors, and options that only ours cannot do."""
    cfg = configuration("dataset.num_shards=3", "model._name=transformer", task="translation")
    with pytest.raises(FileNotFoundError):
        tasks.setup_task(cfg.task)
    with pytest.raises(Exception, match="nonsense") as error:
        configuration("task.nonsense=1", "model._name=transformer", task="translation")
    assert not isinstance(error.value, UserError)


def test_a_checkpoint_with_a_wrong_value_is_one_line():
    cfg = configuration()
    cfg.model.model_dim = "abc"
    with pytest.raises(UserError, match="model_dim"):
        models.build_model(cfg.model, None, from_checkpoint=True)
