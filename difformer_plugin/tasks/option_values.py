"""Checks of the values of fairseq's own options, before anything is read.

fairseq checks them when it needs them, often after minutes and with a traceback.
"""

import ast
import math
import os
import sys
from argparse import Namespace
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from fairseq.data.encoders import TOKENIZER_REGISTRY

from difformer_plugin.data.word_marks import check_mark
from difformer_plugin.errors import UserError
from difformer_plugin.options import flag

MAX_SEED = 2**32 - 1  # NumPy's
MINIMA = {
    0: """
        num_workers data_buffer_size max_epoch max_update stop_time_hours clip_norm curriculum
        save_interval_updates validate_interval_updates validate_after_updates num_batch_buckets
        ema_start_update empty_cache_freq warmup_updates prefix_size
    """,
    1: """
        max_tokens batch_size max_tokens_valid batch_size_valid max_valid_steps log_interval
        save_interval validate_interval required_seq_len_multiple nbest ema_update_freq
    """,
    3: "max_source_positions max_target_positions",  # BOS, a token and EOS
}
LEAST = {name: least for least, names in MINIMA.items() for name in names.split()}
DICTIONARIES = ("model_overrides", "optimizer_overrides")
PAIRS = ("adam_betas", "adamax_betas", "adafactor_eps", "lamb_betas")
SUBWORD_MARKS = ("post_process", "eval_bleu_remove_bpe")
DDP_BACKENDS = ("c10d", "pytorch_ddp", "no_c10d", "legacy_ddp")
# --bpe NAME -> the options with its files
FILES_OF_SUBWORDS = {
    "subword_nmt": ("bpe_codes",),
    "fastbpe": ("bpe_codes",),
    "sentencepiece": ("sentencepiece_model",),
    "byte_bpe": ("sentencepiece_model_path",),
    "hf_byte_bpe": ("bpe_merges", "bpe_vocab"),
}
# Option and value -> (module that it needs, name of the package)
PACKAGES = {
    ("bpe", "subword_nmt"): ("subword_nmt", "subword-nmt"),
    ("bpe", "fastbpe"): ("fastBPE", "fastBPE"),
    ("bpe", "sentencepiece"): ("sentencepiece", "sentencepiece"),
    ("bpe", "byte_bpe"): ("sentencepiece", "sentencepiece"),
    ("bpe", "hf_byte_bpe"): ("tokenizers", "tokenizers"),
    ("bpe", "bert"): ("transformers", "transformers"),
    ("bpe", "gpt2"): ("requests", "requests"),
    ("tokenizer", "moses"): ("sacremoses", "sacremoses"),
    ("tokenizer", "nltk"): ("nltk", "nltk"),
    ("scoring", "wer"): ("editdistance", "editdistance"),
    ("write_checkpoints_asynchronously", True): ("iopath", "iopath"),
}
SLURM = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST")
LAUNCHERS = ("WORLD_SIZE", *SLURM)


def check_values(
    command: str, namespace: Namespace, given: Mapping[str, Any], runs: bool = True
) -> None:
    """Check the values of a command's options.

    Args:
        command: train, validate, generate or interactive.
        namespace: all options.
        given: those that were given, and are not at their defaults.
        runs: whether the command itself is running; programs also parse its options for others.
    Raises:
        UserError: a value is impossible, or an option is missing.
    """
    for name, value in given.items():
        if name in LEAST and value is not None:
            _check_at_least(name, value, LEAST[name])
        elif name in CHECKS:
            CHECKS[name](name, value)
    _check_together(command, vars(namespace), given)
    by_size = command in ("train", "validate")
    if runs and by_size and not namespace.max_tokens and not namespace.batch_size:
        raise UserError(f"fairseq-{command} needs --max-tokens or --batch-size: give one")


def _check_at_least(name: str, value: Any, least: int) -> None:
    try:
        number = float(value)  # fairseq leaves some numbers as text
    except (ValueError, OverflowError):
        number = math.nan
    if not least <= number < math.inf:
        raise UserError(f"{flag(name)} must be at least {least}, not {value}")


def _check_seed(name: str, value: int) -> None:
    if not 0 <= value <= MAX_SEED:
        raise UserError(f"{flag(name)} must lie between 0 and {MAX_SEED}, not {value}")


def _check_rates(name: str, value: list[float]) -> None:
    if not value or not all(0 <= rate < math.inf for rate in value):
        raise UserError(f"{flag(name)} must be one number from 0 on, or several joined by commas")


def _check_frequencies(name: str, value: list[int]) -> None:
    if not value or min(value) < 1:
        raise UserError(f"{flag(name)} must be a whole number from 1 on, or several with commas")


def _check_share(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise UserError(f"{flag(name)} must lie between 0 and 1, not {value}")


def _check_dictionary(name: str, value: Any) -> None:
    if not isinstance(_literal(value), dict):
        example = "{'dropout': 0.1}" if name == "model_overrides" else "{'lr': [0.001]}"
        raise UserError(f'{flag(name)} must be a dictionary such as "{example}", not {value}')


def _check_pair(name: str, value: Any) -> None:
    pair = _literal(value)
    numbers = isinstance(pair, (tuple, list)) and all(isinstance(x, (int, float)) for x in pair)
    if not numbers or len(pair) != 2:
        raise UserError(f"{flag(name)} must be two numbers such as '(0.9, 0.98)', not {value}")


def _literal(value: Any) -> Any:
    """The Python value that a text denotes; None if it denotes none."""
    try:
        return ast.literal_eval(value) if isinstance(value, str) else value
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None


def _check_subword_mark(name: str, value: str | None) -> None:
    if value is not None:
        check_mark(value, flag(name))


def _check_detokeniser(name: str, value: str) -> None:
    if value not in TOKENIZER_REGISTRY:
        raise UserError(
            f"{flag(name)} {value}: no such tokeniser; there are "
            f"{', '.join(sorted(TOKENIZER_REGISTRY))}"
        )


def _check_ddp_backend(name: str, value: str) -> None:
    if value not in DDP_BACKENDS:
        raise UserError(
            f"{flag(name)} {value} needs fairscale, with which the models were not tried: use one "
            f"of {', '.join(DDP_BACKENDS)}"
        )


def _check_profile(name: str, value: bool) -> None:
    if value and not torch.cuda.is_available():
        raise UserError(f"{flag(name)} needs a GPU, whose profiler it starts: leave it out")


def _check_input(file: str) -> None:
    """Check the file of fairseq-interactive, which reads it when the model is there."""
    if file == "-":
        if sys.stdin is None:
            raise UserError("the standard input is closed: give --input FILE")
        return
    if not Path(file).is_file():
        raise UserError(f"--input {file}: no such file; - is the standard input")
    with open(file, "rb") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                raise UserError(
                    f"--input {file}, line {number}: not UTF-8 ({error.reason}); convert the file "
                    "with iconv"
                ) from error


def _check_processes(name: str, value: int) -> None:
    _check_at_least(name, value, 1)
    gpus = torch.cuda.device_count()
    if value > max(gpus, 1) and not any(key in os.environ for key in LAUNCHERS):
        raise UserError(
            f"{flag(name)} {value}: this machine has {gpus} GPUs; start the command with torchrun "
            "on several machines or on CPUs"
        )


CHECKS: dict[str, Callable[[str, Any], None]] = {
    "seed": _check_seed,
    "lr": _check_rates,
    "update_freq": _check_frequencies,
    "ema_decay": _check_share,
    "eval_bleu_detok": _check_detokeniser,
    "ddp_backend": _check_ddp_backend,
    "profile": _check_profile,
    **dict.fromkeys(DICTIONARIES, _check_dictionary),
    **dict.fromkeys(PAIRS, _check_pair),
    **dict.fromkeys(SUBWORD_MARKS, _check_subword_mark),
}


def _check_together(command: str, options: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Check what several options say.

    Raises:
        UserError: one is missing, or contradicts another.
    """
    if "path" in options and not options["path"]:
        raise UserError(f"fairseq-{command} needs --path: give a checkpoint")
    if command == "interactive":
        buffer, batch = max(1, options["buffer_size"]), options["batch_size"]
        if batch and batch > buffer:
            raise UserError(
                f"--batch-size {batch} is more than the {buffer} lines that are read at once: give "
                f"--buffer-size {batch} as well"
            )
        _check_input(options["input"])
    if (
        command == "generate"
        and options["results_path"]
        and Path(options["results_path"]).is_file()
    ):
        raise UserError(f"--results-path {options['results_path']} is a file: give a folder")
    if "distributed_world_size" in given and not options["distributed_init_method"]:
        _check_processes("distributed_world_size", given["distributed_world_size"])
    _check_meeting(options, given)
    _check_subwords(options)
    _check_packages(given)


def _check_meeting(options: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Check the options that say how processes find each other.

    Raises:
        UserError: fairseq would start no process at all, or one with a share of the data alone.
    """
    spawns = "distributed_init_method" in given and not options["distributed_no_spawn"]
    if spawns and torch.cuda.device_count() == 0:
        raise UserError(
            "--distributed-init-method starts a process for each GPU, and this machine has none: "
            "leave it out, and start several processes on CPUs with torchrun"
        )
    if given.get("distributed_port", 0) > 0 and not any(name in os.environ for name in SLURM):
        raise UserError(
            "--distributed-port is for Slurm, whose processes meet there: leave it out, and a free "
            "port is chosen"
        )


def _check_subwords(options: Mapping[str, Any]) -> None:
    """Check that --bpe has its files.

    Raises:
        UserError: it has not.
    """
    for name in FILES_OF_SUBWORDS.get(options.get("bpe") or "", ()):
        path = options.get(name)
        if not path or not isinstance(path, str) or path == "???":  # what omegaconf calls missing
            raise UserError(f"--bpe {options['bpe']} needs {flag(name)}: give its file")
        if not Path(path).is_file():
            raise UserError(f"{flag(name)} {path}: no such file")


def _check_packages(given: Mapping[str, Any]) -> None:
    """Check that the packages that some values need are installed.

    Raises:
        UserError: one is not.
    """
    for (name, value), (module, package) in PACKAGES.items():
        if given.get(name) == value and find_spec(module) is None:
            what = flag(name) if value is True else f"{flag(name)} {value}"
            raise UserError(f"{what} needs a package: pip install {package}")
