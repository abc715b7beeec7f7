"""What the patches change for programs that use fairseq without a task of ours."""

import errno
import os
import shutil

import pytest
import torch
from fairseq import checkpoint_utils, options
from fairseq.dataclass.configs import DistributedTrainingConfig, EMAConfig
from fairseq.distributed import utils as distributed_utils
from fairseq.file_io import PathManager
from fairseq.models.ema.ema import EMA
from fairseq.optim import FP16Optimizer, MemoryEfficientFP16Optimizer
from omegaconf import OmegaConf

import difformer_plugin
from difformer_plugin import fairseq_patches
from difformer_plugin.errors import UserError

difformer_plugin.register()


def patched():
    """The functions and classes of fairseq that the patches replace."""
    return (
        checkpoint_utils.load_checkpoint_to_cpu,
        checkpoint_utils.load_model_ensemble_and_task,
        EMA._step_internal,
        checkpoint_utils.torch_persistent_save,
        checkpoint_utils.PathManager,
        options.parse_args_and_arch,
        FP16Optimizer.build_optimizer.__func__,
        distributed_utils.infer_init_method,
        distributed_utils._broadcast_object_slow,
    )


def test_installing_again_changes_nothing():
    before = patched()
    fairseq_patches.install()
    assert all(one is other for one, other in zip(before, patched(), strict=True))


# files


def test_a_missing_checkpoint_is_still_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such checkpoint"):
        checkpoint_utils.load_checkpoint_to_cpu(str(tmp_path / "checkpoint.pt"))


def test_a_disk_that_fills_up_between_two_names(tmp_path, monkeypatch):
    """fairseq saves under one name and copies to the others, checkpoint_best.pt for one."""
    source, target = tmp_path / "checkpoint1.pt", tmp_path / "checkpoint_best.pt"
    source.write_bytes(b"new" * 1000)
    target.write_bytes(b"old")

    def fill_up(src, dst):
        with open(dst, "wb") as file:
            file.write(b"new")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    copy = checkpoint_utils.PathManager.copy
    with monkeypatch.context() as full, pytest.raises(UserError, match="No space left"):
        full.setattr(shutil, "copyfile", fill_up)
        copy(str(source), str(target), overwrite=True)
    assert sorted(os.listdir(tmp_path)) == ["checkpoint1.pt", "checkpoint_best.pt"]
    assert target.read_bytes() == b"old"
    copy(str(source), str(target), overwrite=True)
    assert target.read_bytes() == source.read_bytes()


def test_remote_paths_are_left_to_fairseq(monkeypatch):
    calls = []
    monkeypatch.setattr(PathManager, "path_requires_pathmanager", lambda path: True)
    monkeypatch.setattr(PathManager, "copy", lambda *args: calls.append(args))
    checkpoint_utils.PathManager.copy("s3://a", "s3://b", overwrite=True)
    assert calls == [("s3://a", "s3://b", True)]


# precision


@pytest.mark.parametrize("asked, tpu", [(["--bf16"], False), (["--bf16", "--tpu"], True)])
def test_only_an_explicit_tpu_is_a_tpu(asked, tpu):
    parser = options.get_training_parser()
    parsed = options.parse_args_and_arch(parser, ["data", "--arch", "transformer", *asked])
    assert (parsed.bf16, parsed.tpu) == (True, tpu)


@pytest.mark.parametrize("optimizer", [FP16Optimizer, MemoryEfficientFP16Optimizer])
def test_only_our_tasks_refuse_float16_on_the_cpu(optimizer):
    def build(**task):
        common = {"fp16": True, "fp16_init_scale": 4, "fp16_scale_window": 1}
        common |= {"fp16_no_flatten_grads": True, "fp16_scale_tolerance": 0.0}
        common |= {"threshold_loss_scale": None, "min_loss_scale": 1e-4, "bf16": False}
        settings = {"_name": "adam", "lr": [0.1], "adam_betas": "(0.9, 0.999)", "adam_eps": 1e-8}
        settings |= {"weight_decay": 0.0, "use_old_adam": False, "tpu": False}
        settings |= {"fp16_adam_stats": False}
        distributed = {"distributed_world_size": 1}
        cfg = {"common": common, "optimizer": settings, "distributed_training": distributed}
        cfg["optimization"] = {"update_freq": [1]}
        weight = torch.nn.Parameter(torch.zeros(2).half())
        return optimizer.build_optimizer(OmegaConf.create(cfg | task), [weight])

    assert build() and build(task={"_name": "translation"})
    with pytest.raises(UserError, match="--fp16 trains on a GPU only"):
        build(task={"_name": "diffusion_translation"})


# several processes

TORCHRUN = {"MASTER_ADDR": "localhost", "MASTER_PORT": "1", "WORLD_SIZE": "2", "RANK": "1"}


@pytest.mark.parametrize(
    "environment, given, method",
    [
        (TORCHRUN, {}, "env://"),
        ({"WORLD_SIZE": "2"}, {}, None),  # as some clusters set it for single processes
        (TORCHRUN | {"WORLD_SIZE": "1"}, {}, None),
        (TORCHRUN, {"tpu": True}, None),
        (TORCHRUN, {"distributed_init_method": "tcp://here:1"}, "tcp://here:1"),
    ],
    ids=["torchrun", "WORLD_SIZE", "one", "tpu", "method"],
)
def test_torchrun_on_cpus(monkeypatch, environment, given, method):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    for name in TORCHRUN:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    values = {"distributed_world_size": 1, "tpu": False} | given
    cfg = OmegaConf.create(vars(DistributedTrainingConfig(**values)))
    distributed_utils.infer_init_method(cfg)
    assert cfg.distributed_init_method == method
    if method == "env://":
        assert (cfg.distributed_world_size, cfg.distributed_rank) == (2, 1)
        assert cfg.distributed_backend == "gloo"


@pytest.mark.parametrize("gpus, world", [(1, 2), (8, 8)])
def test_torchrun_on_machines_of_a_gpu_each(monkeypatch, gpus, world):
    """Where a process sees one GPU, fairseq's world is this process alone."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    for name, value in (TORCHRUN | {"WORLD_SIZE": str(world)}).items():
        monkeypatch.setenv(name, value)
    values = {"distributed_world_size": gpus, "tpu": False}
    cfg = OmegaConf.create(vars(DistributedTrainingConfig(**values)))
    distributed_utils.infer_init_method(cfg)
    assert (cfg.distributed_init_method, cfg.distributed_world_size) == ("env://", world)
    assert (cfg.distributed_rank, cfg.device_id) == (1, 1 % gpus)
    assert cfg.distributed_backend == "nccl" and cfg.distributed_no_spawn


# moving averages


@pytest.mark.parametrize("fp32", [False, True])
def test_a_tied_weight_is_averaged_once_per_step(fp32):
    """Of a model of any task, in place and under all of its names."""
    model = torch.nn.ModuleDict({name: torch.nn.Linear(2, 2, bias=False) for name in "abc"})
    model.b.weight = model.a.weight
    ema = EMA(model, EMAConfig(store_ema=True, ema_decay=0.75, ema_fp32=fp32))
    expected = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for _ in range(3):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn(2, 2))
        ema.step(model)
        for name, tensor in model.state_dict().items():
            expected[name] = 0.75 * expected[name] + 0.25 * tensor
    averaged = ema.get_model().state_dict()
    assert averaged.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(averaged[name], tensor)
