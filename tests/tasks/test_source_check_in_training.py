"""The check of the source in the steps of the task: for every family, and without any effect."""

from types import SimpleNamespace

import pytest
import torch
from fairseq.logging import metrics
from omegaconf import OmegaConf

from difformer_plugin.families.embeddings.objective import DifformerLoss, DifformerLossConfig
from difformer_plugin.families.tokens.objective import (
    DiscreteDiffusionLoss,
    DiscreteDiffusionLossConfig,
)
from difformer_plugin.tasks.diffusion_translation import (
    DiffusionTranslationConfig,
    DiffusionTranslationTask,
)
from difformer_plugin.tasks.source_check import OWN


class Optimizer:
    """What the task's step asks of fairseq's optimizer."""

    def __init__(self, model):
        self.adam = torch.optim.Adam(model.parameters(), lr=1e-2)

    def get_lr(self):
        return self.adam.param_groups[0]["lr"]

    def backward(self, loss):
        loss.backward()

    def step(self):
        self.adam.step()
        self.adam.zero_grad()


@pytest.fixture
def families(build, build_discrete, task):
    """A function from the name of a family to a new model of it and its criterion."""

    def of_tokens(**options):
        model = build_discrete(source_dropout=0.3, **options)
        task.model_cfg, task.model_objective = model.cfg, model.objective
        cfg = OmegaConf.structured(DiscreteDiffusionLossConfig())
        return model, DiscreteDiffusionLoss.build_criterion(cfg, task)

    return {
        "embeddings": lambda: (
            build(self_cond=True, source_dropout=0.3),
            DifformerLoss(DifformerLossConfig(), task),
        ),
        "tokens": of_tokens,
        "insertion": lambda: of_tokens(objective="flexible"),
    }


@pytest.fixture
def batches(sentences):
    def batch(seed):
        source = sentences([3, 5, 4, 2, 6], seed=seed)
        target = sentences([4, 3, 5, 2, 2], "target", seed=seed)
        lengths = source.ne(1).sum(1)
        inputs = {"src_tokens": source, "src_lengths": lengths, "prev_output_tokens": target}
        return {"target": target, "net_input": inputs, "ntokens": 26, "nsentences": 5}

    return [batch(seed) for seed in range(3)]


def train(task, family, batches, due):
    """Two updates, a validation and two updates, as fairseq's trainer calls the task."""
    model, criterion = family()
    cfg = DiffusionTranslationConfig()
    own = DiffusionTranslationTask(cfg, task.source_dictionary, task.target_dictionary)
    own.source_check.due = due
    optimizer = Optimizer(model)
    torch.manual_seed(5)
    updates, values = iter(range(4)), []
    for _ in range(2):
        for update, sample in zip([next(updates), next(updates)], batches):
            own.train_step(sample, model, criterion, optimizer, update)
            own.optimizer_step(optimizer, model, update)
        own.begin_valid_epoch(1, model)
        model.eval()
        with metrics.aggregate(new_root=True) as meters:
            for sample in batches:
                _, _, logged = own.valid_step(sample, model, criterion)
                own.reduce_metrics([logged], criterion)
        own.post_validate(model, {}, meters)
        values.append(meters)
    weights = {n: t for n, t in model.state_dict().items() if torch.is_tensor(t)}
    return SimpleNamespace(weights=weights, meters=values, random=torch.get_rng_state())


@pytest.mark.parametrize("name", ["embeddings", "tokens", "insertion"])
def test_training_is_the_same_with_and_without_it(name, families, task, batches):
    with_it, without = (train(task, families[name], batches, due) for due in (0, None))
    assert OWN in with_it.meters[0] and OWN not in without.meters[0]
    assert with_it.weights.keys() == without.weights.keys()
    for key, tensor in with_it.weights.items():
        assert torch.equal(tensor, without.weights[key]), key
    assert torch.equal(with_it.random, without.random)
    for one, other in zip(with_it.meters, without.meters, strict=True):
        shown, expected = one.get_smoothed_values(), other.get_smoothed_values()
        for name in set(expected) - {"wps"}:  # words per second
            assert shown[name] == expected[name]


@pytest.mark.parametrize("name", ["embeddings", "tokens", "insertion"])
def test_it_is_deterministic(name, families, task, batches):
    one, other = (train(task, families[name], batches, due=0).meters[0] for _ in range(2))
    gains = [meters.get_smoothed_values()["source_gain"] for meters in (one, other)]
    assert gains[0] == gains[1] and abs(gains[0]) < 5
