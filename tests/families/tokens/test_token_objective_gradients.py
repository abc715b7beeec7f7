"""Losses and gradients of models of tokens: speed-ups, sums over batches, precision."""

import pytest
import torch
from discrete_kinds import FIXED, KINDS
from token_cases import TARGETS, kinds

from difformer_plugin.bench.training_speedups import ENGINE, PLAIN, only, training_with
from difformer_plugin.families import chunked_sums as chunked
from difformer_plugin.families.tokens import objective as objective_module


@pytest.fixture
def update(build_discrete, criterion, batch):
    """A function that gives the loss, gradients and logs of batches with some speed-ups."""

    def update(speedups, *samples, dtype=torch.float32, autocast=False, **options):
        model = build_discrete(**({"dropout": 0.0} | options)).to(dtype).train()
        own = criterion(model)
        torch.manual_seed(3)
        total, logs = 0, []
        with training_with(speedups, model, own), torch.autocast("cpu", enabled=autocast):
            for sample in samples or [batch()]:
                loss, size, log = own(model, sample)
                total, logs = total + loss, [*logs, log]
        total.backward()
        return total, {name: p.grad for name, p in model.named_parameters()}, logs

    return update


@pytest.mark.parametrize(
    "speedups", [ENGINE, only("pack"), only("chunk")], ids=["all", "pack", "chunk"]
)
@kinds
def test_speedups_change_nothing(update, options, speedups):
    options = options | {"self_cond": options["objective"] != "flexible"}
    options |= {"share_decoder_input_output_embed": True, "embed_norm": True}
    expected, ours = update(PLAIN, **options), update(speedups, **options)
    torch.testing.assert_close(ours[0], expected[0], rtol=1e-5, atol=1e-4)
    for name, gradient in expected[1].items():
        scale = gradient.abs().max().item()
        torch.testing.assert_close(ours[1][name], gradient, atol=1e-5 * (1 + scale), rtol=1e-3)


@kinds
def test_every_parameter_has_a_gradient(update, options):
    """Possibly zero; distributed training waits for every gradient."""
    self_cond = options["objective"] != "flexible"
    gradients = update(ENGINE, self_cond=self_cond, **options)[1]
    assert [name for name, gradient in gradients.items() if gradient is None] == []
    assert all(gradient.isfinite().all() for gradient in gradients.values())
    special = gradients["denoiser.output_projection.weight"][:3]
    assert not special.any()  # BOS, EOS and padding are no types


@kinds
def test_a_batch_without_tokens(build_discrete, criterion, batch, sentences, options):
    """Frames alone: nothing to predict, a gradient of zeros, no division by zero."""
    model = build_discrete(**options)
    sample = batch(slice(2)) | {"target": sentences([0, 0], "target")}
    own = criterion(model)
    for mode in (True, False):
        loss, size, log = own(model.train(mode), sample)
        assert size == log["sample_size"] == 1 and log["ntokens"] == 0
        assert loss.isfinite() and log["bound"].isfinite()
    model.train()
    own(model, sample)[0].backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("options", FIXED.values(), ids=FIXED)
def test_a_batch_is_the_sum_of_its_parts(build_discrete, criterion, batch, options):
    """In evaluation mode each sentence has its own noise, so sums and gradients of parts add up."""
    model = build_discrete(self_cond=True, **options)
    own = criterion(model, length_loss_factor=0.0, bound_times=1)

    def run(*samples):
        model.zero_grad()
        outcomes = [own(model, sample) for sample in samples]
        sum(loss for loss, _, _ in outcomes).backward()
        gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
        logs = {key: sum(log[key] for _, _, log in outcomes) for key in ("diffusion", "bound")}
        return gradients, logs, sum(size for _, size, _ in outcomes)

    whole, parts = run(batch()), run(batch(slice(1)), batch(slice(1, 6)))
    assert whole[2] == parts[2] == sum(TARGETS)
    torch.testing.assert_close(whole[1], parts[1], rtol=1e-4, atol=1e-3)
    for name, gradient in whole[0].items():
        scale = gradient.abs().max().item()
        torch.testing.assert_close(parts[0][name], gradient, rtol=1e-3, atol=1e-5 * (1 + scale))


def test_accumulated_lengths_weigh_by_tokens(build_discrete, criterion, batch):
    """The length's mean over sentences times the tokens of the batch, by which fairseq divides."""
    model = build_discrete(**KINDS["mdlm"])
    own, sample = criterion(model, length_loss_factor=0.5, bound_times=1), batch()
    loss, size, log = own(model, sample)
    expected = log["diffusion"] / size + 0.5 * log["length"] / len(TARGETS)
    torch.testing.assert_close(loss / size, expected)


# precision


@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)
def test_costs_are_computed_in_float32_whatever_the_precision(update, options, monkeypatch):
    seen, by_autograd = [], chunked.by_autograd

    def watched(function):
        def own(logits, *columns):
            assert not torch.is_autocast_enabled("cpu")
            result = function(logits, *columns)
            seen.append((logits.dtype, result.dtype))
            return result

        return by_autograd(own)

    monkeypatch.setattr(objective_module, "by_autograd", watched)
    exact = update(PLAIN, **options)
    for form in ({"dtype": torch.bfloat16}, {"autocast": True}):
        half = update(ENGINE, **form, **options)
        torch.testing.assert_close(half[0].float(), exact[0], rtol=0.1, atol=1.0)
        full, ours = (
            torch.cat([g[name].flatten().float() for name in exact[1]]) for g in (exact[1], half[1])
        )
        assert (ours - full).norm() < 0.15 * full.norm()
    assert set(seen) == {(torch.float32, torch.float32)}
