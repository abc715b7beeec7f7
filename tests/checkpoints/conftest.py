"""Tiny teachers, and models that start from them."""

import argparse
from types import SimpleNamespace

import pytest
import torch
from fitting import TEACHER_SIZES

from difformer_plugin.checkpoints.teacher import load_teacher
from difformer_plugin.checkpoints.warm_start import PARTS, initialise


@pytest.fixture
def transformer(task):
    """A function that builds a tiny Transformer of fairseq's with random weights everywhere."""
    from fairseq.models.transformer import TransformerModel, base_architecture

    def transformer(task=task, **options):
        sizes = {f"{s}_{n}": v for s in ("encoder", "decoder") for n, v in TEACHER_SIZES.items()}
        args = argparse.Namespace(
            **sizes | {"max_source_positions": 40, "max_target_positions": 30} | options
        )
        base_architecture(args)
        model = TransformerModel.build_model(args, task).eval()
        generator = torch.Generator().manual_seed(5)
        for parameter in model.parameters():
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
        return SimpleNamespace(model=model, args=args)

    return transformer


@pytest.fixture
def saved(tmp_path):
    """A function that saves a Transformer as fairseq does, and gives the path."""

    def saved(built, **entries):
        path = tmp_path / "teacher.pt"
        state = {"args": None, "cfg": {"model": built.args}, "model": built.model.state_dict()}
        torch.save(state | entries, path)
        return path

    return saved


@pytest.fixture
def start(task):
    """A function that initialises a model from a teacher's file."""

    def start(model, path, parts=PARTS, task=task):
        dictionaries = task.source_dictionary, task.target_dictionary
        return initialise(model, load_teacher(path), parts, dictionaries)

    return start
