"""The objective's terms by hand, and their sums over batches and processes."""

import math

import pytest
import torch
from fairseq.distributed import ModuleProxyWrapper
from fairseq.logging import metrics

from difformer_plugin.errors import UserError
from difformer_plugin.families.embeddings.base import DiffusionOutput
from difformer_plugin.families.embeddings.objective import DifformerLoss, DifformerLossConfig

VOCABULARY = 7


def loss_of(task=None, **options):
    return DifformerLoss(DifformerLossConfig(**options), task)


@pytest.fixture
def case():
    """A DiffusionOutput of two sentences of 4 and 2 tokens, rounding weights, and the target."""
    mask = torch.arange(4) < torch.tensor([[4], [2]])
    z_0, z_0_hat = torch.randn(2, 6, 3)
    target = torch.randint(2, VOCABULARY, (2, 4)).masked_fill(~mask, 1)
    output = DiffusionOutput(
        *(z_0, z_0_hat, target[mask], mask.flatten().nonzero()[:, 0]),
        *(torch.randn(2, 256), torch.tensor([9, 200])),
    )
    return output, torch.nn.Linear(3, VOCABULARY, bias=False), target


def by_hand(case, epsilon=0.0, factor=0.1, rounded="z_0_hat"):
    output, projection, target = case
    squares, nll, anchor = [], [], []
    for i, token in enumerate([*target[0, :4].tolist(), *target[1, :2].tolist()]):
        truth, guess = output.z_0[i].tolist(), output.z_0_hat[i].tolist()
        squares += [(x - y) ** 2 for x, y in zip(truth, guess)]
        odds = (projection.weight @ getattr(output, rounded)[i]).exp().tolist()
        cross = 0.0
        for v in range(VOCABULARY):
            wanted = epsilon / VOCABULARY + (1 - epsilon) * (v == token)
            cross -= wanted * math.log(odds[v] / sum(odds))
        anchor.append(cross)
        nll.append(-math.log(odds[token] / sum(odds)))
    lengths = [
        row.exp().sum().log().item() - row[c].item()
        for row, c in zip(output.length_logits, output.length_classes)
    ]
    return {
        "mse": sum(squares) / len(squares),
        "_mse_loss": sum(squares) / len(squares),
        "anchor": sum(anchor) / len(anchor),
        "anchor_nll": sum(nll) / len(nll),
        "length": sum(lengths) / len(lengths),
        "_length_loss": factor * sum(lengths) / len(lengths),
    }


def terms(case, **options):
    output, projection, target = case
    losses = loss_of(**options).terms(projection, output)
    return {name: value.item() for name, value in losses.items()}


@pytest.mark.parametrize("epsilon", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("factor", [0.1, 1.0])
def test_terms_by_hand(case, epsilon, factor):
    ours = terms(case, label_smoothing=epsilon, length_loss_factor=factor)
    assert ours == pytest.approx(by_hand(case, epsilon, factor), rel=1e-5)
    assert set(ours) == {*DifformerLoss.token_terms, *DifformerLoss.sentence_terms}


def test_rounding_loss_rounds_z_0_itself(case):
    ours = terms(case, rounding_loss=True, label_smoothing=0.1)
    assert ours == pytest.approx(by_hand(case, 0.1, rounded="z_0"), rel=1e-5)


def test_mse_loss_only(case):
    ours, expected = terms(case, mse_loss_only=True), by_hand(case)
    assert ours == pytest.approx(expected | {"anchor": 0, "anchor_nll": 0}, rel=1e-5)


def test_the_error_pulls_embedding_and_prediction_together(case):
    """z_0 is learned (Sec. 3.1): the error has a gradient with respect to z_0 and z_0-hat."""
    output, projection, target = case
    z_0, z_0_hat = (z.detach().requires_grad_() for z in (output.z_0, output.z_0_hat))
    own = output._replace(z_0=z_0, z_0_hat=z_0_hat)
    loss_of(mse_loss_only=True).terms(projection, own)["_mse_loss"].backward()
    expected = 2 * (z_0_hat - z_0).detach() / (6 * 3)
    torch.testing.assert_close(z_0_hat.grad, expected)
    torch.testing.assert_close(z_0.grad, -expected)


@pytest.mark.parametrize(
    "options, reached",
    [({}, "z_0_hat"), ({"rounding_loss": True}, "z_0"), ({"mse_loss_only": True}, None)],
)
def test_where_the_gradient_of_the_anchor_goes(case, options, reached):
    output, projection, target = case
    latents = {name: getattr(output, name).detach().requires_grad_() for name in ("z_0", "z_0_hat")}
    anchor = loss_of(**options).terms(projection, output._replace(**latents))["anchor"]
    if anchor.requires_grad:
        anchor.backward()
    moved = [name for name, z in latents.items() if z.grad is not None and z.grad.any()]
    assert moved == [reached] * bool(reached)


@pytest.fixture
def batches(sentences):
    """Six sentences as one batch and as two of different numbers of tokens."""
    source, target = sentences([5, 2, 9, 4, 7, 1]), sentences([3, 6, 8, 1, 2, 2], "target")

    def sample(rows):
        return {"net_input": {"src_tokens": source[rows]}, "target": target[rows]}

    return sample(slice(0, 6)), sample(slice(0, 3)), sample(slice(3, 6))


def test_a_batch_is_the_sum_of_its_halves(build, task, batches):
    """Weighted by tokens, so accumulated gradients are those of the union."""
    model = build(self_cond=True, share_decoder_input_output_embed=True)
    criterion = loss_of(task, label_smoothing=0.1, length_loss_factor=0.0)

    def run(*samples):
        model.zero_grad()
        outcomes = [criterion(model, sample) for sample in samples]
        sum(loss for loss, _, _ in outcomes).backward()
        gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
        logs = {
            key: sum(log[key] for _, _, log in outcomes)
            for key in (*DifformerLoss.token_terms, "length")
        }
        return gradients, logs, sum(size for _, size, _ in outcomes)

    whole, halves = run(batches[0]), run(*batches[1:])
    assert whole[2] == halves[2] == 3 + 6 + 8 + 1 + 2 + 2 + 6 * 2
    for key, value in whole[1].items():
        torch.testing.assert_close(value, halves[1][key])
    for name, gradient in whole[0].items():
        torch.testing.assert_close(gradient, halves[0][name], atol=1e-4, rtol=1e-4)


def test_forward_adds_up_and_counts(build, task, batches):
    model, criterion = build(), loss_of(task, label_smoothing=0.1)
    sample = batches[0]
    loss, size, log = criterion(model, sample)
    output = model(target=sample["target"], **sample["net_input"])
    expected = criterion.terms(model.denoiser.output_projection, output)
    total = expected["mse"] + expected["anchor"] + 0.1 * expected["length"]
    torch.testing.assert_close(loss, total * size)
    assert (log["ntokens"], log["nsentences"], log["sample_size"]) == (size, 6, size)
    for name in DifformerLoss.token_terms:
        torch.testing.assert_close(log[name], expected[name].detach() * size)
    torch.testing.assert_close(log["length"], expected["length"].detach() * 6)
    assert not log["mse"].requires_grad


def test_anisotropy_is_logged_in_validation_only(build, task, batches):
    model, criterion = build(embed_norm=True, embed_norm_before_proj=True), loss_of(task)
    log = criterion(model, batches[0])[2]
    z_0 = model.denoiser.embed(torch.tensor([i for i in range(24) if i != 1])).detach()
    cosine = torch.nn.functional.cosine_similarity(z_0[:, None], z_0[None], dim=-1)
    assert log["ani"] == pytest.approx((cosine.sum().item() - 23) / (23 * 22), abs=1e-5)
    assert "ani" not in criterion(model.train(), batches[0])[2]


def test_a_wrapped_model(build, task, batches):
    class Wrapper(torch.nn.Module):
        def __init__(self, module):
            super().__init__()
            self.module = module

        def forward(self, **kwargs):
            return self.module(**kwargs)

    model, criterion = build(), loss_of(task)
    proxy = ModuleProxyWrapper(Wrapper(model).eval())  # as fairseq wraps for several processes
    wrapped = criterion(proxy, batches[0])[0]
    torch.testing.assert_close(wrapped, criterion(model, batches[0])[0])


def test_metrics_are_means_over_tokens_and_sentences():
    logs = [
        {"sample_size": 10, "nsentences": 2, "mse": 10.0, "anchor": 15.0, "anchor_nll": 5.0}
        | {"_mse_loss": 5.0, "length": 5.0, "_length_loss": 0.5}
        | {"ani": 0.2, "dgs": 0.1, "rescaling_factor": 4.0, "measured": 1},
        {"sample_size": 30, "nsentences": 3, "mse": 6.0, "anchor": 1.0, "anchor_nll": 3.0}
        | {"_mse_loss": 3.0, "length": 3.0, "_length_loss": 0.3}
        | {"ani": 0.4, "dgs": 0.3, "rescaling_factor": 4.0, "measured": 1},
    ]
    expected = {"mse": 0.4, "anchor": 0.4, "anchor_nll": 0.2, "length": 1.6, "ani": 0.3}
    expected |= {"dgs": 0.2, "rescaling_factor": 4.0}
    expected["loss"] = 0.2 + 0.4 + 0.16  # with --mse-factor 0.5 and --length-loss-factor 0.1
    with metrics.aggregate() as together:
        DifformerLoss.reduce_metrics(logs)
    with metrics.aggregate() as in_turn:
        for log in logs:
            DifformerLoss.reduce_metrics([log])
    for meters in (together, in_turn):
        assert meters.get_smoothed_values() == pytest.approx(expected)
    assert DifformerLoss.logging_outputs_can_be_summed()


@pytest.mark.parametrize(
    "options, said",
    [
        ({"label_smoothing": 1.0}, "--label-smoothing"),
        ({"label_smoothing": -0.1}, "--label-smoothing"),
        ({"rounding_loss": True, "mse_loss_only": True}, "--rounding-loss.*--mse-loss-only"),
    ],
)
def test_impossible_options(options, said):
    with pytest.raises(UserError, match=said):
        loss_of(**options)


@pytest.mark.parametrize("options", [{}, {"rounding_loss": True}, {"mse_loss_only": True}])
def test_every_parameter_has_a_gradient(build, task, batches, options):
    """Possibly zero; distributed training waits for every gradient."""
    model = build(self_cond=True, embed_norm=True, embed_norm_affine=True).train()
    assert model.denoiser.output_projection.weight is not model.denoiser.embed_tokens.weight
    loss_of(task, **options)(model, batches[0])[0].backward()
    gradients = {name: weight.grad for name, weight in model.named_parameters()}
    assert [name for name, gradient in gradients.items() if gradient is None] == []
    assert all(gradient.isfinite().all() for gradient in gradients.values())
    rounding = gradients["denoiser.output_projection.weight"]
    assert bool(rounding.any()) != ("mse_loss_only" in options)


def test_weight_of_the_error_and_where_its_gradient_stops(case):
    output, projection, _ = case
    z_0, z_0_hat = (z.detach().requires_grad_() for z in (output.z_0, output.z_0_hat))
    own = output._replace(z_0=z_0, z_0_hat=z_0_hat)
    found = loss_of(mse_factor=0.1, detach_z_0=True).terms(projection, own)
    assert found["mse"].item() == pytest.approx(by_hand(case)["mse"])
    mse = found["_mse_loss"]
    assert mse.item() == pytest.approx(0.1 * by_hand(case)["mse"])
    mse.backward()
    assert z_0.grad is None
    torch.testing.assert_close(z_0_hat.grad, 0.2 * (z_0_hat - z_0).detach() / (6 * 3))
