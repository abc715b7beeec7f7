"""Start fairseq's CMLM or Levenshtein Transformer as a teacher, like --init-from-teacher.

    python scripts/init_baseline.py TEACHER.pt OUT.pt DATA-BIN OPTIONS-OF-FAIRSEQ-TRAIN ...
    fairseq-train DATA-BIN OPTIONS-OF-FAIRSEQ-TRAIN ... --finetune-from-model OUT.pt

Encoder, embedding table and decoder layers are the teacher's; what it lacks (CMLM's embedding of
lengths) is as --seed initialises it.
"""

import sys

import torch
from fairseq import options, tasks
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from omegaconf import OmegaConf

from difformer_plugin.checkpoints.loading import load_weights_only
from difformer_plugin.checkpoints.saving import save_atomically


def main(arguments: list[str]) -> None:
    """Write OUT.pt and say which weights are fresh."""
    teacher, out, *training = arguments
    parser = options.get_training_parser()
    cfg = convert_namespace_to_omegaconf(options.parse_args_and_arch(parser, training))
    torch.manual_seed(cfg.common.seed)
    weights = tasks.setup_task(cfg.task).build_model(cfg.model).state_dict()
    taken = {
        name: value
        for name, value in load_weights_only(teacher)["model"].items()
        if name in weights and value.shape == weights[name].shape
    }
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
    main(sys.argv[1:])
