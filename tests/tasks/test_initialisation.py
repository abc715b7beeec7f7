"""A training starts from its teacher once; its encoder may rest at first; F fits the table."""

import argparse
from types import SimpleNamespace
from unittest import mock

import pytest
import torch
from fairseq.optim.adam import FairseqAdam
from fairseq.optim.fp16_optimizer import FP16Optimizer, MemoryEfficientFP16Optimizer
from fairseq.tasks.fairseq_task import StatefulContainer
from omegaconf import OmegaConf

from difformer_plugin.checkpoints.warm_start import encoder_parameters
from difformer_plugin.diffusion.gaussian.rescaling import search_factor
from difformer_plugin.errors import UserError
from difformer_plugin.families.embeddings.rescaling import SAMPLES_OF_TEACHER, SEED_OF_TEACHER
from difformer_plugin.tasks.warm_start import STATE, EncoderFreeze, begin, resumed_checkpoint

SIZES = {
    "model_dim": 16,
    "latent_dim": 16,
    "encoder_ffn_embed_dim": 24,
    "decoder_ffn_embed_dim": 24,
    "decoder_attention_heads": 2,
}


@pytest.fixture
def path(teacher, tmp_path):
    """The checkpoint of the fixture `teacher`."""
    options = {f"{s}_attention_heads": 2 for s in ("encoder", "decoder")}
    cfg = {"model": argparse.Namespace(**options)}
    torch.save({"args": None, "cfg": cfg, "model": teacher.state_dict()}, tmp_path / "teacher.pt")
    return str(tmp_path / "teacher.pt")


@pytest.fixture
def training(task, tmp_path):
    """A function that makes the task of a training with some options of fairseq's."""

    def training(**options):
        cfg = {
            "save_dir": str(tmp_path / "save"),
            "restore_file": "checkpoint_last.pt",
            "continue_once": None,
            "finetune_from_model": None,
        }
        state = StatefulContainer()
        return SimpleNamespace(**vars(task), cfg=SimpleNamespace(**cfg | options), state=state)

    return training


def test_nothing_happens_without_a_teacher(build, training):
    task = training()
    assert begin(build(), task) == () and task.state.state_dict == {}


def test_what_it_began_from_is_logged_and_kept(build, training, path, caplog):
    caplog.set_level("INFO")
    task = training()
    model = build(**SIZES, init_from_teacher=path, init_parts="decoder,encoder")
    assert begin(model, task) == ("encoder", "decoder")
    kept = task.state.state_dict[STATE]
    assert kept["path"] == path and kept["parts"] == ["encoder", "decoder"]
    taken, fresh = (record.getMessage() for record in caplog.records)
    assert taken == (
        f"initialised from {path} (weights {kept['weights']}): encoder 32 tensors, "
        "decoder 52 tensors"
    )
    assert fresh.startswith("not in the teacher, drawn at random: denoiser.embed_time, denoiser.")


def test_a_resumed_training_does_not_need_the_teacher(build, training, tmp_path):
    """It passes on what its checkpoint says; its random weights are about to be overwritten."""
    (tmp_path / "save").mkdir()
    said = {STATE: {"path": "gone.pt", "weights": "12", "parts": ["encoder"]}}
    torch.save({"task_state": said}, tmp_path / "save" / "checkpoint_last.pt")
    model, task = build(**SIZES, init_from_teacher=str(tmp_path / "gone.pt")), training()
    before = {name: p.clone() for name, p in model.named_parameters()}
    assert begin(model, task) == () and task.state.state_dict == said
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())


def test_a_missing_teacher_stops_a_new_training(build, training, tmp_path):
    model = build(**SIZES, init_from_teacher=str(tmp_path / "gone.pt"))
    with pytest.raises(UserError, match="^--init-from-teacher: .*gone.pt: no such checkpoint"):
        begin(model, training())


def test_two_origins_are_refused(build, training, path):
    model = build(**SIZES, init_from_teacher=path)
    with pytest.raises(UserError, match="--finetune-from-model both say"):
        begin(model, training(finetune_from_model="x.pt"))


def test_which_checkpoint_fairseq_will_load(training, tmp_path):
    (tmp_path / "save").mkdir()
    last, other = tmp_path / "save" / "checkpoint_last.pt", tmp_path / "other.pt"
    assert resumed_checkpoint(training().cfg) is None
    assert resumed_checkpoint(training(restore_file=str(other)).cfg) is None
    other.touch()
    assert resumed_checkpoint(training(restore_file=str(other)).cfg) == str(other)
    assert resumed_checkpoint(training(continue_once=str(other)).cfg) == str(other)
    last.touch()
    assert resumed_checkpoint(training(continue_once=str(other)).cfg) == str(last)


AUTO = {"rescaling_factor": "auto", "max_dgs": 0.3}


def test_the_rescaling_factor_is_that_of_the_teachers_table(build, training, path):
    """Of a table three times as wide it is greater than of a normal one; resuming keeps it."""
    state = torch.load(path, weights_only=False)
    state["model"]["decoder.embed_tokens.weight"] *= 3
    torch.save(state, path)
    model = build(**SIZES, **AUTO, init_from_teacher=path)
    normal = model.rescaling.factor
    model.initialised = begin(model, training())
    model.prepare_training(None)
    table = model.denoiser.table()
    draws = SEED_OF_TEACHER, SAMPLES_OF_TEACHER
    expected, _ = search_factor(lambda f: model.rescaling.score(table, f, *draws), 0.3)
    assert model.rescaling.factor == expected > normal + 1
    resumed = build(**SIZES, **AUTO, init_from_teacher=path)
    resumed.prepare_training(None)  # nothing was initialised
    assert resumed.rescaling.factor == normal
    resumed.load_state_dict(model.state_dict())
    assert resumed.rescaling.factor == expected


def test_without_its_table_the_factor_is_that_of_normal_embeddings(build, training, path):
    model = build(**SIZES, **AUTO, init_from_teacher=path, init_parts="encoder")
    normal = model.rescaling.factor
    model.initialised = begin(model, training())
    model.prepare_training(None)
    assert model.rescaling.factor == normal


# frozen for the first updates


def configuration(**common):
    """What fairseq's optimizers read of its configuration; weight decay is strong."""
    precision = {"fp16": False, "bf16": False, "fp16_no_flatten_grads": False} | common
    scaling = {
        "fp16_init_scale": 4,
        "fp16_scale_window": 100,
        "fp16_scale_tolerance": 0.0,
        "threshold_loss_scale": None,
        "min_loss_scale": 1e-4,
        "model_parallel_size": 1,
    }
    adam = {"lr": [0.1], "adam_betas": "(0.9, 0.98)", "adam_eps": 1e-8, "weight_decay": 0.5}
    adam |= {"_name": "adam", "use_old_adam": True, "fp16_adam_stats": False, "tpu": False}
    return OmegaConf.create(
        {
            "common": precision | scaling,
            "optimizer": adam,
            "optimization": {"lr": [0.1], "update_freq": [1]},
            "distributed_training": {"distributed_world_size": 1},
        }
    )


def plain(parameters):
    return FairseqAdam(configuration().optimizer, parameters)


def bf16(parameters):
    return FP16Optimizer.build_optimizer(configuration(bf16=True), parameters)


def flat(parameters):
    """--fp16 on a GPU: one flat float32 copy. The index of the CPU is None."""
    with mock.patch("torch.cuda.current_device", lambda: None):
        cfg = configuration(fp16=True)
        fp32_params = FP16Optimizer.build_fp32_params(cfg.optimizer, parameters)
        return FP16Optimizer(
            cfg, parameters, FairseqAdam(cfg.optimizer, list(fp32_params.values())), fp32_params
        )


def memory_efficient(parameters):
    return MemoryEfficientFP16Optimizer.build_optimizer(configuration(bf16=True), parameters)


@pytest.mark.parametrize(
    "make, dtype",
    [
        (plain, torch.float32),
        (bf16, torch.bfloat16),
        (flat, torch.float16),
        (memory_efficient, torch.bfloat16),
    ],
)
@pytest.mark.parametrize("drops", [True, False], ids=["dropped", "zeros as of legacy_ddp"])
def test_frozen_weights_stay_bit_by_bit_and_then_learn(build, make, dtype, drops):
    model = build(**SIZES).to(dtype)
    parameters = list(model.parameters())
    optimizer, freeze = make(parameters), EncoderFreeze(model, 2)
    frozen = encoder_parameters(model)
    others = [p for p in parameters if not any(p is f for f in frozen)]
    start = [p.detach().clone() for p in frozen]
    for update in range(4):
        before = [p.detach().clone() for p in others]
        optimizer.zero_grad()
        optimizer.backward(sum((p.float() ** 2).sum() + p.float().sum() for p in parameters))
        freeze.drop_gradients(update)
        if not drops and update < 2:
            for parameter in frozen:
                parameter.grad = torch.zeros_like(parameter)
        optimizer.clip_grad_norm(1.0)
        with freeze.held(optimizer, update):
            optimizer.step()
        assert not any(torch.equal(p, b) for p, b in zip(others, before))
        same = [torch.equal(p, s) for p, s in zip(frozen, start)]
        assert all(same) if update < 2 else not any(same)


def test_optimizers_without_the_freeze_would_change_them(build):
    """By weight decay alone, which is why values are restored."""
    model = build(**SIZES)
    parameter = encoder_parameters(model)[0]
    before, optimizer = parameter.detach().clone(), plain([parameter])
    parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert not torch.equal(parameter, before)
