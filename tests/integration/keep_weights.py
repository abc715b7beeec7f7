"""fairseq-train, whose processes in addition leave what they have learned in weights.RANK.pt."""

import os
import sys

import torch
from fairseq_cli import train  # before all else of fairseq, for its way of logging

trainers, build = [], train.Trainer.__init__


def remember(self, *args, **kwargs):
    """Build a trainer, and keep it."""
    build(self, *args, **kwargs)
    trainers.append(self)


if __name__ == "__main__":
    train.Trainer.__init__ = remember
    folder = sys.argv.pop(1)
    train.cli_main()
    torch.save(trainers[0].model.state_dict(), f"{folder}/weights.{os.environ['RANK']}.pt")
