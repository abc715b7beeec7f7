"""A teacher's distributions as labels: by brute force, and the gradient by autograd."""

import pytest
import torch
from fairseq import checkpoint_utils
from teacher_by_hand import BOS, EOS, PAD, one_by_one

from difformer_plugin.errors import UserError
from difformer_plugin.families.chunked_sums import by_autograd
from difformer_plugin.families.embeddings import soft_labels
from difformer_plugin.families.embeddings.anchor import SmoothedNLL
from difformer_plugin.families.embeddings.objective import DifformerLoss, DifformerLossConfig
from difformer_plugin.families.embeddings.soft_labels import SoftenedNLL, SoftLabels


@pytest.fixture
def labels(task, teacher, monkeypatch, tmp_path):
    path = tmp_path / "teacher.pt"
    path.touch()
    loaded = {str(path): teacher}
    monkeypatch.setattr(
        checkpoint_utils, "load_model_ensemble", lambda paths, task: ([loaded[paths[0]]], None)
    )
    return SoftLabels(str(path), task)


def test_a_weight_without_a_teacher_is_refused(task):
    with pytest.raises(UserError, match="--soft-label-weight has no effect without --soft-labels"):
        DifformerLoss(DifformerLossConfig(soft_label_weight=0.9), task)


def test_the_teacher_sees_source_and_prefix_only(labels, teacher, sentences):
    """Its log-probabilities of the target, summed, are those of one token after another."""
    source, target = sentences([5, 3, 7]), sentences([4, 6, 2], "target")
    states = labels.states(source, target)
    assert states.shape[:2] == target.shape and not states[:, 0].any()
    log_probs = labels.probabilities(states.flatten(0, 1)).log().view(*target.shape, -1)
    picked = log_probs.gather(-1, target[..., None])[..., 0]
    counted = target.ne(PAD) & target.ne(BOS)
    means = (picked * counted).sum(1) / counted.sum(1)
    expected = one_by_one(teacher, source, [row[row.ne(PAD)] for row in target])
    assert means.tolist() == pytest.approx(expected, abs=1e-4)
    assert (target[:, 0] == BOS).all() and (target == EOS).any()


@pytest.mark.parametrize("epsilon, weight", [(0.0, 0.5), (0.1, 0.3), (0.1, 1.0)])
def test_gradient_is_that_of_autograd(labels, sentences, epsilon, weight):
    target = sentences([4, 6], "target")
    states = labels.states(sentences([5, 3]), target).flatten(0, 1)
    targets = target.flatten()
    logits = 3 * torch.randn(len(targets), 24)
    costs = SoftenedNLL(epsilon, weight, labels)
    sums, gradient = costs(logits.clone(), targets, states, with_gradient=True)
    expected, expected_gradient = by_autograd(costs.function)(
        logits.clone(), targets, states, with_gradient=True
    )
    torch.testing.assert_close(sums, expected)
    torch.testing.assert_close(gradient, expected_gradient)
    assert costs(logits, targets, states, with_gradient=False)[1] is None


def test_cross_entropy_by_hand(labels, sentences):
    target = sentences([3], "target")
    states = labels.states(sentences([5]), target)[0]
    logits = torch.randn(5, 24)
    costs = SoftenedNLL(0.0, 0.25, labels).function(logits, target[0], states)[:, 0]
    q = labels.probabilities(states)
    for i, token in enumerate(target[0].tolist()):
        wanted = torch.zeros(24)
        wanted[token] = 1 if i == 0 else 0.75  # before BOS the teacher says nothing
        wanted += 0.25 * q[i] * (i > 0)
        expected = -(wanted * logits[i].log_softmax(0)).sum()
        torch.testing.assert_close(costs[i], expected)


def test_without_weight_it_is_the_smoothed_loss(labels, sentences):
    target = sentences([3, 5], "target")
    states = labels.states(sentences([5, 2]), target).flatten(0, 1)
    logits = torch.randn(len(states), 24)
    soft = SoftenedNLL(0.1, 0.0, labels).function(logits, target.flatten(), states)
    torch.testing.assert_close(soft, SmoothedNLL(0.1).function(logits, target.flatten()))


def test_training_reads_the_labels_of_the_tokens_that_it_predicts(
    build, task, labels, sentences, monkeypatch
):
    """Several noises and shown tokens included; validation does not need the teacher."""
    monkeypatch.setattr(soft_labels, "SoftLabels", None)
    model = build(noises_per_sentence=2, clean_tokens=1.0).train()
    criterion = DifformerLoss(DifformerLossConfig(soft_labels="teacher.pt"), task)
    criterion.labels = labels
    source, target = sentences([5, 3, 7]), sentences([4, 6, 2], "target")
    output = model(source, target)
    assert torch.equal(target.flatten()[output.places], output.tokens)
    seen = []
    criterion.token_sums = lambda costs, rounded, table, *columns: (
        seen.append(columns) or torch.ones(2)
    )
    model.forward = lambda **unused: output
    sample = {"net_input": {"src_tokens": source}, "target": target}
    criterion(model, sample)
    ((tokens, states),) = seen
    assert torch.equal(states, labels.states(source, target).flatten(0, 1)[output.places])
    assert torch.equal(tokens, output.tokens)
    model.eval()
    criterion(model, sample)
    assert len(seen[1]) == 1


@pytest.mark.parametrize(
    "options, message",
    [
        ({"soft_label_weight": 1.5}, r"--soft-label-weight must be in \[0, 1\], not 1.5"),
        ({"mse_factor": -1.0}, "--mse-factor must be at least 0, not -1"),
        ({"soft_labels": "t.pt", "rounding_loss": True}, "--soft-labels are of the anchor loss"),
    ],
)
def test_values_that_options_cannot_have(task, options, message):
    with pytest.raises(UserError, match=message):
        DifformerLoss(DifformerLossConfig(**options), task)


def test_a_diffusion_model_is_no_teacher(build, task, monkeypatch, tmp_path):
    path = tmp_path / "x.pt"
    path.touch()
    loaded = [build()], None
    monkeypatch.setattr(checkpoint_utils, "load_model_ensemble", lambda paths, task: loaded)
    with pytest.raises(UserError, match=r"--soft-labels .*x.pt must be an autoregressive teacher"):
        SoftLabels(str(path), task)


def test_a_missing_teacher_is_named(task):
    with pytest.raises(UserError, match="--soft-labels nowhere.pt: no such checkpoint"):
        SoftLabels("nowhere.pt", task)
