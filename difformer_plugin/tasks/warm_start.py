"""Start training from a teacher (--init-from-teacher), and keep the encoder frozen at first."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from fairseq.optim.fp16_optimizer import FP16Optimizer
from torch import nn

from difformer_plugin.checkpoints import warm_start
from difformer_plugin.checkpoints.loading import load_weights_only
from difformer_plugin.checkpoints.teacher import load_teacher
from difformer_plugin.errors import UserError

logger = logging.getLogger(__name__)
STATE = "initialised_from"  # in the task's state, which checkpoints hold


def begin(model: Any, task: Any) -> tuple[str, ...]:
    """Initialise a new model from its teacher, if its configuration names one.

    A training that resumes takes its weights from its own checkpoint and does not read the
    teacher. The path, fingerprint and parts are kept in the task's state.

    Args:
        model: has not been trained; fairseq has not loaded a checkpoint into it yet.
        task: has the dictionaries, and fairseq's options for checkpoints.
    Returns:
        the parts that were initialised.
    Raises:
        UserError: the teacher cannot be read or does not fit, or --finetune-from-model is given.
    """
    path = model.cfg.init_from_teacher
    if path is None:
        return ()
    if task.cfg.finetune_from_model is not None:
        raise UserError(
            "--init-from-teacher and --finetune-from-model both say where the weights come from: "
            "omit one of them"
        )
    if checkpoint := resumed_checkpoint(task.cfg):
        logger.info(f"{checkpoint} exists: not initialised from {path} again")
        earlier = load_weights_only(checkpoint, memory_map=True).get("task_state") or {}
        if STATE in earlier:
            task.state.merge_state_dict({STATE: earlier[STATE]})
        return ()
    parts = model.teacher_parts
    teacher = load_teacher(path)
    dictionaries = task.source_dictionary, task.target_dictionary
    initialised = warm_start.initialise(model, teacher, parts, dictionaries)
    logger.info(f"initialised from {path} (weights {teacher.fingerprint}): {initialised}")
    logger.info(f"not in the teacher, drawn at random: {', '.join(initialised.fresh) or 'nothing'}")
    origin = {"path": path, "weights": teacher.fingerprint, "parts": list(parts)}
    task.state.merge_state_dict({STATE: origin})
    return parts


def resumed_checkpoint(cfg: Any) -> str | None:
    """The checkpoint that fairseq will load when training begins, None if there is none.

    Args:
        cfg: the task's configuration, with `save_dir`, `restore_file` and `continue_once`.
    """
    path = cfg.restore_file
    if path == "checkpoint_last.pt":  # fairseq's default: a file of --save-dir
        path = os.path.join(cfg.save_dir, path)
        if not os.path.exists(path) and cfg.continue_once:
            path = cfg.continue_once
    return path if os.path.exists(path) else None


class EncoderFreeze:
    """Keeps the encoder's layers as they are for the first updates, weight decay included.

    Gradients are computed and dropped: distributed training waits for the gradient of every
    parameter, and an optimizer cannot be given more parameters later without losing its state.

    Args:
        model: the model that is trained.
        updates: number of updates without a change.
    """

    def __init__(self, model: nn.Module, updates: int):
        self.model, self.updates = model, updates

    def parameters(self, num_updates: int) -> list[nn.Parameter]:
        """The parameters that must not change in the update after `num_updates` updates."""
        if num_updates >= self.updates:
            return []
        return warm_start.encoder_parameters(self.model)

    def drop_gradients(self, num_updates: int) -> None:
        """Drop the gradients of frozen parameters; called after each backward pass."""
        for parameter in self.parameters(num_updates):
            parameter.grad = None

    @contextmanager
    def held(self, optimizer: Any, num_updates: int) -> Iterator[None]:
        """Undo what a step does to frozen parameters: weight decay where gradients are zero."""
        frozen = self.parameters(num_updates)
        kept = [parameter.detach().clone() for parameter in frozen]
        yield
        for parameter, value in zip(frozen, kept):
            parameter.data.copy_(value)
        if frozen and isinstance(optimizer, FP16Optimizer):
            _restore_float32(optimizer, {id(p): value for p, value in zip(frozen, kept)})


def _restore_float32(optimizer: FP16Optimizer, kept: dict[int, torch.Tensor]) -> None:
    """Set the float32 copies of some parameters, which --fp16 and --bf16 optimise, to given values.

    The copies are made from the parameters when training starts or resumes, and differ from them
    only after an update.

    Args:
        kept: id of a parameter -> its value.
    """
    if not optimizer.has_flat_params:
        for parameter, copy in zip(optimizer.fp16_params, optimizer.fp32_params):
            if id(parameter) in kept:
                copy.data.copy_(kept[id(parameter)])
        return
    offsets = dict.fromkeys(optimizer.fp32_params, 0)  # by device; each has one flat copy
    for parameter in optimizer.fp16_params:
        device, size = parameter.device.index, parameter.numel()
        if id(parameter) in kept:
            flat = optimizer.fp32_params[device].data[offsets[device] : offsets[device] + size]
            flat.copy_(kept[id(parameter)].flatten())
        offsets[device] += size
