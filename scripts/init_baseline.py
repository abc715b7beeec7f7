"""Start fairseq's CMLM or Levenshtein Transformer as a teacher, like --init-from-teacher.

    python scripts/init_baseline.py TEACHER.pt OUT.pt DATA-BIN OPTIONS-OF-FAIRSEQ-TRAIN ...
    fairseq-train DATA-BIN OPTIONS-OF-FAIRSEQ-TRAIN ... --finetune-from-model OUT.pt

Encoder, embedding table and decoder layers are the teacher's; what it lacks (CMLM's embedding of
lengths) is as --seed initialises it.
"""

import sys
from pathlib import Path
from typing import Any

import torch
from fairseq import options, tasks
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from omegaconf import OmegaConf

from difformer_plugin.checkpoints.loading import load_weights_only
from difformer_plugin.checkpoints.saving import save_atomically
from difformer_plugin.errors import UserError


def taken_weights(
    teacher: str, theirs: dict[str, Any], weights: dict[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """The weights of a teacher that a model takes: all that both have.

    Raises:
        UserError: the teacher is no Transformer of the model's size.
    """
    taken = {name: value for name, value in theirs.items() if name in weights}
    for name, value in taken.items():
        if value.shape != weights[name].shape:
            raise UserError(
                f"{teacher} does not fit: its {name} is {'x'.join(map(str, value.shape))}, the "
                f"model's {'x'.join(map(str, weights[name].shape))}; give the model the sizes of "
                "the teacher"
            )
    layers = [name for name in weights if ".layers." in name]
    if not layers or any(name not in taken for name in layers):
        raise UserError(
            f"{teacher} lacks layers of the model: give a Transformer with as many layers"
        )
    return taken


def main(arguments: list[str]) -> None:
    """Write OUT.pt and say which weights are fresh."""
    if len(arguments) < 3:
        raise UserError("usage: init_baseline.py TEACHER.pt OUT.pt DATA-BIN OPTIONS ...")
    teacher, out, *training = arguments
    theirs = load_weights_only(teacher)["model"]
    if not Path(out).parent.is_dir():
        raise UserError(f"{out}: there is no such folder")
    parser = options.get_training_parser()
    cfg = convert_namespace_to_omegaconf(options.parse_args_and_arch(parser, training))
    torch.manual_seed(cfg.common.seed)
    try:
        weights = tasks.setup_task(cfg.task).build_model(cfg.model).state_dict()
    except FileNotFoundError as error:
        raise UserError(f"{error.filename}: no such data; fairseq-preprocess makes it") from error
    taken = taken_weights(teacher, theirs, weights)
    checkpoint = {
        "cfg": OmegaConf.to_container(cfg, resolve=True, enum_to_str=True),
        "args": None,
        "model": weights | {name: value.float() for name, value in taken.items()},
        "optimizer_history": [
            {
                "num_updates": 0,
                "criterion_name": "LabelSmoothedDualImitationCriterion",
                "optimizer_name": "FairseqAdam",
                "lr_scheduler_state": {},
            }
        ],
        "extra_state": {},
        "last_optimizer_state": None,
        "task_state": {},
    }
    save_atomically(checkpoint, out)
    fresh = sorted(set(weights) - set(taken))
    print(f"{len(taken)} tensors from {teacher}; fresh: {', '.join(fresh)}")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        sys.exit(f"error: {error}")
