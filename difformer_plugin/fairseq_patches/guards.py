"""Guards around fairseq: checkpoints read and written safely, one line for a user's error.

fairseq reads a checkpoint with `torch.load`, which since torch 2.6 unpickles weights only. Beyond
tensors a checkpoint of fairseq needs `argparse.Namespace` and the numbers and arrays of NumPy in
which its meters count. These are allowed here, and nothing else is.
"""

import argparse
import importlib.util
import os
import pickle
import re
import sys
from functools import wraps
from pathlib import Path

import numpy as np
import torch
from fairseq import checkpoint_utils, optim, options
from fairseq.distributed import utils as distributed_utils
from fairseq.file_io import PathManager
from torch.multiprocessing import ProcessRaisedException

from difformer_plugin.errors import UserError


def looks_like_a_checkpoint(path):
    """Whether a file begins as torch's zip files and pickles do."""
    with open(path, "rb") as file:
        return file.read(2) in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


def refusal(path, error):
    """What to tell a user about a file that could not be loaded as a checkpoint."""
    text = str(error)
    if "difformer.modules" in text:
        return UserError(
            f"{path} is a checkpoint of the authors' implementation: convert it first with "
            "`difformer convert IN OUT`"
        )
    if not looks_like_a_checkpoint(path):
        return UserError(f"{path} is not a readable checkpoint, but a file of another kind")
    if "GLOBAL" in text or "Unsupported class" in text:
        reason = next((line.strip() for line in text.splitlines() if "GLOBAL" in line), "")
        return UserError(
            f"{path} is refused: its pickle asks for code that a checkpoint does not need; load "
            f"only what can be read without running code ({reason[:200]})"
        )
    return UserError(
        f"{path} is not a readable checkpoint (truncated, or of another kind): copy it again or "
        f"use another one ({text.splitlines()[0][:120] if text else type(error).__name__})"
    )


def _harmless():
    """Classes and functions that build plain data and nothing else."""
    array, scalar = np.zeros(1).__reduce__()[0], np.float64(0).__reduce__()[0]
    dtypes = {type(np.dtype(kind)) for kind in (np.int32, np.int64, np.float32, np.float64)}
    before_numpy_2 = [
        (function, f"numpy.core.multiarray.{function.__name__}") for function in (array, scalar)
    ]
    return [argparse.Namespace, np.ndarray, np.dtype, array, scalar, *before_numpy_2, *dtypes]


UNREADABLE = (
    pickle.UnpicklingError,
    RuntimeError,
    EOFError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    IndexError,
)


def load_weights_only(path):
    """`torch.load` without running code; a UserError says what is wrong with the file."""
    if not os.path.isfile(path):
        raise UserError(f"{path}: no such checkpoint")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        raise refusal(path, error) from error


def _guard_load(original):
    @wraps(original)
    def load_checkpoint_to_cpu(path, *args, **kwargs):
        if not os.path.isfile(path):
            raise UserError(f"{path}: no such checkpoint")
        try:
            state = original(path, *args, **kwargs)
        except UNREADABLE as error:
            raise refusal(path, error) from error
        if "model" not in state or not (state.get("args") or state.get("cfg")):
            raise UserError(f"{path} holds no fairseq model (no 'model' with its 'cfg' or 'args')")
        return state

    return load_checkpoint_to_cpu


def save_atomically(checkpoint, path, remedy="free some space and run the same command again"):
    """`torch.save` under a temporary name: a full disk leaves no half of a file behind.

    Raises:
        UserError: the file could not be written; an older one of that name is still there.
    """
    temporary = f"{path}.tmp"
    try:
        with open(temporary, "wb") as file:
            torch.save(checkpoint, file)
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:
        if isinstance(error, (FileNotFoundError, IsADirectoryError, PermissionError)):
            remedy = "name a file in a folder that exists and that you may write to"
        if os.path.isfile(temporary):
            os.remove(temporary)
        raise UserError(f"{path} could not be written ({_cause(error)}): {remedy}") from error


def _guard_save(original):
    @wraps(original)
    def torch_persistent_save(obj, filename, async_write=False):
        """fairseq's tries three times, logs a traceback and leaves what it has written."""
        if async_write:
            return original(obj, filename, async_write)
        remedy = (
            "free some space and run the same command again, which resumes from the last whole "
            "checkpoint"
        )
        return save_atomically(obj, filename, remedy)

    return torch_persistent_save


def _guard_copy(original):
    def copy(src_path, dst_path, overwrite=False):
        """Copy under a temporary name, so that a full disk leaves the old file whole."""
        temporary = f"{dst_path}.tmp"
        try:
            original(src_path, temporary, overwrite=True)
            os.replace(temporary, dst_path)
        except OSError as error:
            Path(temporary).unlink(missing_ok=True)
            raise UserError(f"{dst_path} could not be written ({error.strerror})") from error
        return True

    return staticmethod(copy)


def _guard_parse(original):
    @wraps(original)
    def parse_args_and_arch(*args, **kwargs):
        """fairseq takes --bf16 for a TPU; where there is no torch_xla, CPU or GPU is meant."""
        parsed = original(*args, **kwargs)
        parsed_options = parsed[0] if isinstance(parsed, tuple) else parsed
        bf16 = getattr(parsed_options, "bf16", False)  # not there where defaults are suppressed
        if bf16 and importlib.util.find_spec("torch_xla") is None:
            parsed_options.tpu = False
        return parsed

    return parse_args_and_arch


def _guard_fp16(original):
    def build_optimizer(cls, cfg, params, **kwargs):
        """fairseq flattens parameters on GPUs only, and on the CPU float16 is slow besides."""
        params = list(params)
        if cfg.common.fp16 and not params[0].is_cuda:
            raise UserError("--fp16 trains on a GPU only: use --bf16 on the CPU, or neither")
        return original(cfg, params, **kwargs)

    return classmethod(build_optimizer)


def _guard_launch(original):
    @wraps(original)
    def infer_init_method(cfg, force_distributed=False):
        """Take torchrun's word where there is no GPU, which fairseq does not foresee.

        It would train as many separate models, or divide by the number of GPUs.
        """
        processes = int(os.environ.get("WORLD_SIZE", "1"))
        if torch.cuda.device_count() == 0 and processes > 1 and not cfg.distributed_init_method:
            cfg.distributed_init_method = "env://"
            cfg.distributed_world_size = processes
            cfg.distributed_rank = int(os.environ["RANK"])
            cfg.distributed_no_spawn = True
            cfg.device_id = 0
            cfg.distributed_backend = "gloo"
            cfg.ddp_backend = "legacy_ddp"  # the others want a GPU in each process
        return original(cfg, force_distributed)

    return infer_init_method


def _broadcast(obj, src_rank, group, dist_device):
    """What rank 0 has loaded, with its configuration, to the other processes of this training.

    fairseq's own function reads it with `torch.load`, which refuses a configuration. Nothing but
    these processes has a part in it: the checkpoint itself was read weights only.
    """
    box = [obj]
    torch.distributed.broadcast_object_list(box, src=src_rank, group=group, device=dist_device)
    return box[0]


def _cause(error):
    """The first line of the OSError behind an error, or of the error itself."""
    while error.__context__ is not None and not isinstance(error, OSError):
        error = error.__context__
    return str(error).splitlines()[0][:160] if str(error) else type(error).__name__


def _find(error, kind):
    """The error of this kind in a chain of causes, or None."""
    while error is not None and not isinstance(error, kind):
        error = error.__cause__ or error.__context__
    return error


def _in_one_line(error):
    """What a user needs to read of an error, or None where only a traceback helps."""
    if isinstance(error, ProcessRaisedException):  # of a process that holds another GPU
        lines = re.findall(r"\bUserError: (.*)", str(error))
        return lines[-1] if lines else None
    return _find(error, UserError) or (error if isinstance(error, OSError) else None)


def _guard_hook(original):
    def excepthook(kind, error, traceback):
        shown = _in_one_line(error)
        if shown is None:
            original(kind, error, traceback)
        else:
            print(f"error: {shown}", file=sys.stderr)

    return excepthook


def install():
    """Put the guards in place, once."""
    if hasattr(checkpoint_utils, "_difformer_guarded"):
        return
    checkpoint_utils._difformer_guarded = True
    torch.serialization.add_safe_globals(_harmless())
    checkpoint_utils.load_checkpoint_to_cpu = _guard_load(checkpoint_utils.load_checkpoint_to_cpu)
    checkpoint_utils.torch_persistent_save = _guard_save(checkpoint_utils.torch_persistent_save)
    options.parse_args_and_arch = _guard_parse(options.parse_args_and_arch)
    PathManager.copy = _guard_copy(PathManager.copy)
    for optimizer in (optim.FP16Optimizer, optim.MemoryEfficientFP16Optimizer):
        optimizer.build_optimizer = _guard_fp16(optimizer.build_optimizer)
    distributed_utils._broadcast_object_slow = _broadcast
    distributed_utils.infer_init_method = _guard_launch(distributed_utils.infer_init_method)
    if Path(sys.argv[0]).name.startswith("fairseq") or "fairseq_cli" in sys.argv[0]:
        # the errors of other programs are their own
        sys.excepthook = _guard_hook(sys.excepthook)
        os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # hydra then leaves errors to that hook
