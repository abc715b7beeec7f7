"""The criteria of models of tokens: their terms by loops over tokens, their logs, their options."""

import math

import pytest
import torch
from discrete_kinds import KINDS
from fairseq.logging import metrics
from token_cases import TARGETS, kinds

from difformer_plugin.errors import UserError
from difformer_plugin.families.tokens.model import DiscreteDiffusion

STEPS = 8  # T of the models here


def output_of(model, sample, part=(0, 1)):
    with torch.no_grad():
        return model(target=sample["target"], part=part, **sample["net_input"])


# by loops


def by_loops(model, output, epsilon, auxiliary):
    """The sums of `terms`, one token after another, in float64 from the matrices of the process."""
    cfg, process, n = model.cfg, model.process, model.vocabulary.types
    table = model.denoiser.output_projection.weight.detach().double()[model.vocabulary.first_type :]
    loss = bound = 0.0
    zero = torch.zeros(1, dtype=torch.float64)

    def matrix(s, t):
        x = torch.arange(process.states)
        times = (torch.full((process.states,), float(v), dtype=torch.float64) for v in (s, t))
        return process.row(x, *times).double()

    for prediction, x_0, x_t, s, t in zip(*output[:5]):
        log_p = (table @ prediction.double()).log_softmax(-1)
        p, x_0, x_t, s, t = log_p.exp(), int(x_0), int(x_t), float(s), float(t)
        nll = -log_p[x_0].item()
        soft = (1 - epsilon) * nll - epsilon * log_p.mean().item()
        alpha = [process.schedule.alpha_bar(zero + time).item() for time in (s, t)]
        if cfg.objective in ("mdlm", "flexible"):
            weight = (alpha[0] - alpha[1]) / (1 - alpha[1]) * STEPS
            if cfg.continuous_time or cfg.objective == "flexible":
                weight = 1 / t  # log-linear
            loss += weight * soft * (x_t == n)
            bound += weight * nll * (x_t == n)
        elif cfg.objective == "d3pm":
            if cfg.process == "absorbing":
                kl = (alpha[0] - alpha[1]) / (1 - alpha[1]) * nll * (x_t == n)
                rest = 0.0
            else:
                to, before = matrix(s, t), matrix(0, s)
                joint = before * to[:, x_t]
                reach = joint.sum(-1, keepdim=True)
                # Where x_0 hardly reaches x_t, x_t alone decides.
                posterior = torch.where(reach > 1e-10, joint / reach, to[:, x_t])
                q, reverse = posterior[x_0], p @ posterior[:n]
                kl = (torch.xlogy(q, q) - torch.xlogy(q, reverse)).sum().item() if s else nll
                end = matrix(0, 1)[x_0]
                rest = (torch.xlogy(end, end).sum() + math.log(n)).item()
            loss += kl + auxiliary * soft
            bound += STEPS * kl + rest
        else:
            rate = -process.schedule.derivative(zero + t).item() / alpha[1]
            logits = table @ prediction.double()
            own = matrix(0, t)[x_0]
            if cfg.process == "absorbing":
                ratios = alpha[1] / (1 - alpha[1]) * (logits - math.log(n)).exp()
                into = [rate * (x_t == n)] * n
            else:
                ratios, into = logits.exp(), [rate / n * (y != x_t) for y in range(n)]
                end = matrix(0, 1)[x_0]
                bound += (torch.xlogy(end, end).sum() + math.log(n)).item()
            cost = 0.0
            for y in range(n):
                r = (own[y] / own[x_t]).item()
                k = r * (math.log(r) - 1) if r else 0.0
                cost += into[y] * (ratios[y].item() - (r and r * ratios[y].log().item()) + k)
            loss, bound = loss + cost, bound + cost
    return loss, bound


def insertions_by_loops(output):
    loss = bound = 0.0
    for log_b, a, t in zip(*(x.double().tolist() for x in output.gaps)):
        b = math.exp(log_b)
        loss += (b - a * log_b + (a * math.log(a) if a else 0) - a) / t
        bound += (b - a * log_b - a) / t
    return loss, bound


@kinds
@pytest.mark.parametrize("part", [(0, 1), (1, 4)])
@pytest.mark.parametrize("epsilon, auxiliary", [(0.0, None), (0.1, 0.3)])
def test_terms_by_loops(build_discrete, criterion, batch, options, part, epsilon, auxiliary):
    given = {}
    if options["objective"] == "d3pm":
        given["auxiliary_loss_factor"] = auxiliary
    if options["objective"] != "sedd":
        given["label_smoothing"] = epsilon
    if auxiliary is None:
        auxiliary = 0.01 if options["process"] == "absorbing" else 0.0
    model = build_discrete(**options)
    own = criterion(model, **given)
    output = output_of(model, batch(), part)
    loss, bound = by_loops(model, output, epsilon, auxiliary)
    own.objective = own.build_objective(model)
    with torch.no_grad():
        terms = own.terms(model, output)
    assert terms["diffusion"].item() == pytest.approx(loss, rel=2e-4)
    if options["objective"] == "flexible":
        more, of_bound = insertions_by_loops(output)
        assert terms["insertions"].item() == pytest.approx(more, rel=1e-4)
        assert "length" not in terms
        bound += of_bound
    else:
        log_p = output.length_logits.double().log_softmax(-1)
        nll = -sum(own[c].item() for own, c in zip(log_p, output.length_classes))
        assert terms["length"].item() == pytest.approx(nll, rel=1e-5)
    assert terms["bound"].item() == pytest.approx(bound, rel=2e-4, abs=2e-3)


@pytest.mark.parametrize("name", ["sedd uniform", "sedd absorbing"])
def test_squared_errors_by_loops(build_discrete, criterion, batch, name):
    """1/2 the sum over y != x_t of (s_y - p(y | x_0) / p(x_t | x_0))^2, over tokens."""
    model = build_discrete(**KINDS[name])
    own, output = criterion(model, score_loss="squared"), output_of(model, batch())
    own.objective = own.build_objective(model)
    process, n = model.process, model.vocabulary.types
    table = model.denoiser.output_projection.weight.detach().double()[model.vocabulary.first_type :]
    expected = 0.0
    for prediction, x_0, x_t, _, t in zip(*output[:5]):
        alpha, logits = process.schedule.alpha_bar(t).item(), table @ prediction.double()
        own_row = process.row(x_0[None], torch.zeros(1).double(), t[None])[0].double()
        if process.has_mask:
            if x_t == process.mask:
                ratios = alpha / (1 - alpha) * (logits - math.log(n)).exp()
                expected += (ratios - own_row[:n] / own_row[n]).square().sum().item() / 2
            continue
        for y in range(n):
            if y != x_t:
                expected += (logits[y].exp() - own_row[y] / own_row[x_t]).item() ** 2 / 2
    with torch.no_grad():
        terms = own.terms(model, output)
    assert terms["diffusion"].item() == pytest.approx(expected, rel=1e-3)
    with torch.no_grad():
        plain = criterion(model)
        plain.objective = plain.build_objective(model)
        torch.testing.assert_close(terms["bound"], plain.terms(model, output)["bound"])


@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)
def test_the_bound_is_a_mean_over_times(build_discrete, criterion, batch, options):
    model = build_discrete(**options)
    own, sample, encoded = criterion(model, bound_times=3), batch(), []
    model.encoder.register_forward_hook(lambda *_: encoded.append(1))
    with torch.no_grad():
        _, size, log = own(model, sample)
        assert len(encoded) == 1  # sources are the same at all times
        parts = [own.terms(model, output_of(model, sample, (i, 3))) for i in range(3)]
    assert size == log["ntokens"] == log["sample_size"] == sum(TARGETS)
    assert log["nsentences"] == len(TARGETS)
    one_step = 1e-3 if options["process"] == "absorbing" else 1e-4
    factor = one_step if options["objective"] == "d3pm" else 0.1
    for name in parts[0]:
        torch.testing.assert_close(log[name], sum(terms[name] for terms in parts) / 3)
    loss = (log["diffusion"] + log.get("insertions", 0)) / sum(TARGETS)
    if "length" in log:
        loss = loss + factor * log["length"] / len(TARGETS)
    with metrics.aggregate() as meters:
        own.reduce_metrics([log])
    assert meters.get_smoothed_values()["loss"] == pytest.approx(loss.item(), abs=2e-4)


def test_the_bound_of_a_network_that_knows_nothing(build_discrete, criterion, batch):
    """All types are equally likely: log n a token, up to the number of masks that were drawn."""
    for name in ("d3pm absorbing", "mdlm", "mdlm continuous"):
        model = build_discrete(**KINDS[name])
        torch.nn.init.zeros_(model.denoiser.output_projection.weight)
        own = criterion(model, bound_times=32)
        with torch.no_grad():
            log = own(model, batch())[2]
        n = model.vocabulary.types
        per_token = log["bound"].item() / log["sample_size"]
        assert per_token == pytest.approx(math.log(n), rel=0.1)


# logs


@kinds
def test_logs_of_uneven_batches_are_those_of_one(build_discrete, criterion, batch, options):
    model = build_discrete(**options)
    own = criterion(model, bound_times=2)
    with torch.no_grad():
        logs = [own(model, batch(rows))[2] for rows in (slice(1), slice(1, 6), slice(6))]
    whole, *parts = logs[2], *logs[:2]
    with metrics.aggregate() as one:
        own.reduce_metrics([whole])
    with metrics.aggregate() as together:
        own.reduce_metrics(parts)
    with metrics.aggregate() as in_turn:
        for log in parts:
            own.reduce_metrics([log])
    expected = one.get_smoothed_values()
    third = "insertions" if options["objective"] == "flexible" else "length"
    assert set(expected) == {"loss", "diffusion", "bound", third}
    bound = whole["bound"].item() / sum(TARGETS)
    assert float(expected["bound"]) == pytest.approx(bound, abs=1e-3)
    for meters in (together, in_turn):
        found = meters.get_smoothed_values()
        for name in ("loss", "diffusion", "bound", third):
            assert float(found[name]) == pytest.approx(float(expected[name]), rel=1e-3, abs=1e-3)
    assert own.logging_outputs_can_be_summed()


# options


@pytest.mark.parametrize(
    "name, options, said",
    [
        ("mdlm", {"label_smoothing": 1.0}, "--label-smoothing must"),
        ("mdlm", {"label_smoothing": -0.1}, "--label-smoothing must"),
        ("d3pm uniform", {"auxiliary_loss_factor": -1.0}, "--auxiliary-loss-factor must"),
        ("d3pm uniform", {"auxiliary_loss_factor": math.nan}, "--auxiliary-loss-factor must"),
        ("mdlm", {"length_loss_factor": -1.0}, "--length-loss-factor must"),
        ("mdlm", {"bound_times": 0}, "--bound-times"),
        ("mdlm", {"auxiliary_loss_factor": 0.1}, "--auxiliary-loss-factor belongs.*d3pm"),
        ("sedd uniform", {"label_smoothing": 0.1}, "--label-smoothing: score entropy"),
        ("sedd uniform", {"score_loss": "l1"}, "--score-loss l1: .*entropy and squared"),
        ("d3pm uniform", {"score_loss": "squared"}, "--score-loss squared belongs.*sedd"),
        ("mdlm", {"score_loss": "squared"}, "--score-loss squared belongs.*not to mdlm"),
        ("flexible", {"score_loss": "squared"}, "--score-loss squared belongs.*not to flexible"),
        ("flexible", {"length_loss_factor": 0.1}, "--length-loss-factor.*flexible"),
    ],
)
def test_impossible_options(build_discrete, criterion, name, options, said):
    with pytest.raises(UserError, match=said) as error:
        criterion(build_discrete(**KINDS[name]), **options)
    assert "\n" not in str(error.value)


def test_a_wrapped_model(build_discrete, criterion, batch):
    """As fairseq wraps for several processes."""
    from fairseq.distributed import ModuleProxyWrapper

    class Wrapper(torch.nn.Module):
        def __init__(self, module):
            super().__init__()
            self.module = module

        def forward(self, **kwargs):
            return self.module(**kwargs)

    model = build_discrete(**KINDS["mdlm"])
    assert isinstance(model, DiscreteDiffusion)
    proxy = ModuleProxyWrapper(Wrapper(model)).eval()
    found, expected = criterion(model)(proxy, batch())[0], criterion(model)(model, batch())[0]
    torch.testing.assert_close(found, expected)
