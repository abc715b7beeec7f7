"""--best-checkpoint-metric is checked before training."""

from types import SimpleNamespace

import pytest

from difformer_plugin.errors import UserError
from difformer_plugin.families.embeddings.objective import DifformerLoss
from difformer_plugin.families.tokens.objective import DiscreteDiffusionLoss
from difformer_plugin.tasks import best_metric


def options(name, **more):
    defaults = {"eval_bleu": False, "disable_validation": False}
    defaults["maximize_best_checkpoint_metric"] = name == "bleu"
    return SimpleNamespace(best_checkpoint_metric=name, **defaults | more)


@pytest.mark.parametrize("name", ["loss", "anchor_nll", "length", "dgs", "wps"])
def test_what_validation_measures(name):
    best_metric.check(options(name), DifformerLoss)
    best_metric.check_measured(options(name), {name: 1.0})


@pytest.mark.parametrize("name", ["nll_loss", "bound", "_length_loss", "blue"])
def test_what_it_does_not(name):
    with pytest.raises(UserError, match=f"{name}: validation does not .* one of loss"):
        best_metric.check(options(name), DifformerLoss)
    best_metric.check(options("bound"), DiscreteDiffusionLoss)


def test_bleu_needs_its_option(caplog):
    with pytest.raises(UserError, match="--best-checkpoint-metric bleu needs --eval-bleu"):
        best_metric.check(options("bleu"), DifformerLoss)
    best_metric.check(options("bleu", disable_validation=True), DifformerLoss)
    best_metric.check(options("bleu", eval_bleu=True), DifformerLoss)
    assert not caplog.text
    best_metric.check(
        options("bleu", eval_bleu=True, maximize_best_checkpoint_metric=False), DifformerLoss
    )
    assert "keeps the checkpoint with the lowest BLEU" in caplog.text


def test_a_metric_that_a_validation_lacks_all_the_same():
    """A term of the loss that these options of the criterion leave out."""
    with pytest.raises(UserError, match="length: validation does not .* one of loss, bound"):
        best_metric.check_measured(options("length"), {"loss": 1.0, "bound": 2.0})
