"""Vocabularies, criteria and batches for the tests of models of tokens."""

from types import SimpleNamespace

import pytest
import torch
from omegaconf import OmegaConf
from tiny import make_dictionary
from token_cases import SOURCES, TARGETS


@pytest.fixture
def few():
    """A task of a few types, <unk> the first: enough of each for statistics."""
    dictionaries = (make_dictionary([f"{side}{i}" for i in range(3)]) for side in "st")
    return SimpleNamespace(
        **dict(zip(("source_dictionary", "target_dictionary"), dictionaries, strict=True))
    )


@pytest.fixture
def read(monkeypatch):
    """A function that runs a model and gives the tokens that its denoiser reads."""

    def read(model, source, target, **options):
        seen, own = [], model.denoiser.embed

        def embed(tokens):
            seen.append(tokens)
            return own(tokens)

        monkeypatch.setattr(model.denoiser, "embed", embed)
        with torch.no_grad():
            output = model(src_tokens=source, target=target, **options)
        monkeypatch.setattr(model.denoiser, "embed", own)
        (tokens,) = seen
        return output, tokens

    return read


@pytest.fixture
def criterion(task):
    """A function that builds the criterion of a model as the task does, with options of its own."""
    from difformer_plugin.families.tokens.objective import (
        DiscreteDiffusionLoss,
        DiscreteDiffusionLossConfig,
    )

    def criterion(model, **options):
        task.model_cfg, task.model_objective = model.cfg, model.objective
        cfg = OmegaConf.structured(DiscreteDiffusionLossConfig(**options))
        return DiscreteDiffusionLoss.build_criterion(cfg, task)

    return criterion


@pytest.fixture
def batch(sentences):
    """A function that gives some of six sentences as fairseq does."""
    source, target = sentences(SOURCES), sentences(TARGETS, "target")

    def batch(rows=slice(None)):
        return {"net_input": {"src_tokens": source[rows]}, "target": target[rows]}

    return batch
