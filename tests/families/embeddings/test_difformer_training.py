"""Difformer in training and validation: what is corrupted, predicted and differentiated."""

import math

import pytest
import torch

from difformer_plugin.diffusion.schedules import alpha_bar_series
from difformer_plugin.families.embeddings.objective import DifformerLoss, DifformerLossConfig


def watch(model):
    """A list of the denoiser's calls: the arguments of each and its result."""
    calls, denoise = [], model.denoiser.denoise

    def watched(*args):
        calls.append((*args, denoise(*args)))
        return calls[-1][-1]

    model.denoiser.denoise = watched
    return calls


def draws(model, source):
    """The times, the noise (B, 4, 8) and who is conditioned, in one step."""
    zeros, mask = torch.zeros(len(source), 4, 8), torch.ones(len(source), 4, dtype=torch.bool)
    drawn = model._corrupt(source, zeros, mask)
    variance = 1 - torch.from_numpy(alpha_bar_series("sqrt", 50))[drawn.t][:, None, None]
    return drawn.t, (drawn.z_t / variance.sqrt()).float(), drawn.conditioned


# evaluation mode


@pytest.mark.parametrize("self_cond", [False, True])
def test_evaluation_does_not_depend_on_the_batch(build, sentences, self_cond):
    model = build(self_cond=self_cond)
    source, target = sentences([5, 2, 9, 4, 7, 1]), sentences([3, 6, 8, 5, 9, 2], "target")
    with torch.no_grad():
        whole, again = model(source, target), model(source, target)
        order = torch.tensor([4, 0, 5, 2, 1, 3])
        shuffled = model(source[order], target[order])
        assert torch.equal(whole.z_0_hat, again.z_0_hat)
        of_sentence = whole.z_0_hat.split(target.ne(1).sum(1).tolist())
        expected = torch.cat([of_sentence[i] for i in order])
        torch.testing.assert_close(shuffled.z_0_hat, expected)
        for row in range(6):
            alone = model(
                source[row : row + 1, source[row].ne(1)], target[row : row + 1, target[row].ne(1)]
            )
            torch.testing.assert_close(alone.z_0_hat, of_sentence[row])
            torch.testing.assert_close(alone.length_logits[0], whole.length_logits[row])
            assert alone.length_classes[0] == whole.length_classes[row]


def test_evaluation_draws_times_and_noise_as_training_does(build, sentences):
    """Uniform times, standard normal noise, half of the sentences conditioned."""
    model = build(self_cond=True)
    source = sentences([6] * 2000)
    t, noise, conditioned = draws(model, source)
    counts = torch.bincount(t, minlength=50).double()
    assert counts.numel() == 50
    assert ((counts - 40).square() / 40).sum() < 49 + 4 * math.sqrt(2 * 49)  # chi squared
    assert abs(noise.mean().item()) < 4 / math.sqrt(noise.numel())
    assert abs(noise.var().item() - 1) < 4 * math.sqrt(2 / noise.numel())
    assert abs(conditioned.double().mean().item() - 0.5) < 4 * math.sqrt(0.25 / 2000)


# training mode


def test_training_corrupts_by_equation_3(build, sentences):
    count, factor = 1500, 4.0
    model = build(rescaling_factor=factor, dropout=0.0).train()
    calls = watch(model)
    target = sentences([3] * count, "target")
    output = model(sentences([4] * count), target)
    (z_t, t, layout, conditions, previous, _, z_0_hat) = calls[0]
    assert len(calls) == 1 and not previous.any() and torch.equal(z_0_hat, output.z_0_hat)
    assert layout.mask.all() and conditions.mask.sum(1).tolist() == [6] * count
    expected = 8**0.5 * model.denoiser.embed_tokens.weight[target.flatten()]
    torch.testing.assert_close(output.z_0, expected)

    counts = torch.bincount(t, minlength=50).double()
    assert counts.numel() == 50
    assert ((counts - count / 50).square() / (count / 50)).sum() < 49 + 4 * math.sqrt(2 * 49)
    alpha_bar = torch.from_numpy(alpha_bar_series("sqrt", 50))[t][:, None, None]
    z_t, z_0 = (z.view(count, 5, 8) for z in (z_t, output.z_0))
    noise = (z_t - alpha_bar.sqrt() * z_0) / (factor * (1 - alpha_bar).sqrt())
    root = math.sqrt(noise.numel())
    assert abs(noise.mean().item()) < 4 / root
    assert abs(noise.square().mean().item() - 1) < 4 * math.sqrt(2) / root
    assert abs(noise.pow(4).mean().item() - 3) < 4 * math.sqrt(96) / root
    noised_again = model(sentences([4] * count), target)
    assert not torch.allclose(noised_again.z_0_hat, output.z_0_hat)


def test_each_process_of_a_training_draws_its_own_times_and_noise(build, sentences, monkeypatch):
    """Although fairseq seeds all of them alike."""
    model, source = build(self_cond=True).train(), sentences([4] * 40)

    def draws_of(rank):
        monkeypatch.setattr(torch.distributed, "is_available", lambda: True)
        monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
        monkeypatch.setattr(torch.distributed, "get_rank", lambda *group: rank)
        torch.manual_seed(5)
        return [draws(model, source) for _ in range(2)]

    first, again, other = draws_of(0), draws_of(0), draws_of(1)
    for drawn, same in zip(first, again):
        assert all(map(torch.equal, drawn, same))
    distinct = [*first, *other]
    for i, drawn in enumerate(distinct):
        for earlier in distinct[:i]:
            assert not any(map(torch.equal, drawn, earlier))


def test_training_conditions_half_of_the_sentences_on_a_first_prediction(build, sentences):
    count = 400
    model = build(self_cond=True, dropout=0.0).train()
    calls = watch(model)
    model(sentences([4] * count), sentences([3] * count, "target"))
    first, second = calls
    z_t, t, layout, conditions, previous, *_ = second
    conditioned = previous.view(count, -1).any(1)
    assert abs(conditioned.sum().item() - count / 2) < 4 * math.sqrt(count / 4)
    assert len(first[0]) == 5 * conditioned.sum() and not first[4].any()
    assert not previous.requires_grad
    with torch.no_grad():
        expected = model.denoiser.denoise(z_t, t, layout, conditions, torch.zeros_like(z_t))
    of_conditioned = conditioned[layout.rows]
    torch.testing.assert_close(previous[of_conditioned], expected[of_conditioned])


def test_length_classes_are_of_the_real_lengths(build, sentences):
    output = build(pred_length_offset=True)(sentences([5, 2]), sentences([3, 6], "target"))
    assert output.length_classes.tolist() == [128 + 3 - 5, 128 + 6 - 2]
    absolute = build()(sentences([5, 2]), sentences([3, 6], "target"))
    assert absolute.length_classes.tolist() == [5, 8]


def test_gradient_reaches_the_target_embeddings_through_both_sides(build, sentences):
    """z_0 is learned: both the target of the error and its prediction have gradients."""
    for part in ("z_0", "z_0_hat"):
        model = build().train()
        target = sentences([3, 6], "target")
        getattr(model(sentences([5, 2]), target), part).square().sum().backward()
        moved = model.denoiser.embed_tokens.weight.grad.any(1).nonzero().flatten().tolist()
        assert moved == sorted({*target.flatten().tolist()} - {model.denoiser.pad})


def test_gradient_reaches_every_parameter(build, sentences):
    model = build(self_cond=True, embed_norm=True, embed_norm_affine=True).train()
    output = model(sentences([5] * 8), sentences([6] * 8, "target"))
    logits = model.denoiser.output_projection(output.z_0_hat)
    (logits.square().sum() + output.length_logits.square().sum()).backward()
    untouched = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    # a bias of keys shifts all scores of a softmax equally
    assert not [name for name in untouched if not name.endswith("k_proj.bias")]


# half precision


@pytest.mark.parametrize("how", ["bfloat16", "float16", "autocast"])
def test_a_step_of_training_in_half_precision(how, build, sentences):
    """Losses stay near those of float32, with the noise and the self-conditioning the same."""
    source, target = sentences([5, 3, 7]), sentences([4, 6, 2], side="target")
    full = build(self_cond=True)(source, target)
    model = build(self_cond=True)
    if how == "autocast":
        with torch.autocast("cpu", torch.bfloat16):
            half = model(source, target)
    else:
        half = model.to(getattr(torch, how))(source, target)
    assert half.z_0_hat.dtype != torch.float32
    difference = (half.z_0_hat.float() - full.z_0_hat).abs().max()
    assert 0 < difference < 0.1 * full.z_0_hat.abs().max()


def test_gradients_of_a_step_of_training_under_autocast(build, task, sentences):
    """The first pass of self-conditioning, without gradients, takes none from the second pass."""
    model = build(self_cond=True, embed_norm=True, embed_norm_affine=True).train()
    calls = watch(model)
    target = sentences([4, 6, 2, 5] * 4, side="target")
    sample = {"net_input": {"src_tokens": sentences([5, 3, 7, 4] * 4)}, "target": target}
    criterion = DifformerLoss(DifformerLossConfig(label_smoothing=0.1), task)
    with torch.autocast("cpu", torch.bfloat16):
        loss, _, _ = criterion(model, sample)
    loss.backward()
    assert [len(t) for _, t, *_ in calls][1:] == [16] and 0 < len(calls[0][1]) < 16
    for name, weight in model.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.isfinite().all(), name
        if name.startswith("denoiser.") and "proj" in name and not name.endswith("k_proj.bias"):
            assert weight.grad.any(), name
