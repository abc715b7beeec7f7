"""What predictions cost, against chains of matrices and loops over tokens."""

import math

import numpy as np
import pytest
import torch
from enumeration import STEPS, TYPES, build, schedule_named
from score_chains import as_ratios, chain, make, rates, sigma

from difformer_plugin.diffusion.categorical.objectives import (
    D3PM,
    MDLM,
    SEDD,
    smoothed,
)
from difformer_plugin.diffusion.categorical.process import Absorbing, Uniform
from difformer_plugin.diffusion.categorical.scores import as_log_ratios, squared_error
from difformer_plugin.diffusion.schedules import SCHEDULES

COSINE = SCHEDULES["cosine"].normalised()
LOG_LINEAR = SCHEDULES["log_linear"].normalised()


def case(kind, count=200):
    """Logits, and states that are possible, at steps 1 .. T: x_0, x_t, s, t."""
    process, chain = build(kind, schedule_named("cosine"))
    random = np.random.default_rng(0)
    steps, x_0 = random.integers(1, STEPS + 1, count), random.integers(0, TYPES, count)
    x_t = np.array(
        [random.choice(chain.states, p=chain.between(0, t)[x]) for t, x in zip(steps, x_0)]
    )
    times = [torch.from_numpy((steps - before) / STEPS) for before in (1, 0)]
    logits = torch.from_numpy(random.normal(size=(count, TYPES), scale=2))
    return process, chain, logits, torch.from_numpy(x_0), torch.from_numpy(x_t), *times


@pytest.mark.parametrize("auxiliary, epsilon", [(0.0, 0.0), (0.01, 0.0), (0.5, 0.2)])
@pytest.mark.parametrize("kind", ["uniform", "absorbing", "dense"])
def test_d3pm_by_the_matrices(kind, auxiliary, epsilon):
    """KL_t + lambda CE; the bound is T KL_t and what is left of x_0 at the end."""
    process, chain, logits, x_0, x_t, s, t = case(kind)
    objective = D3PM(process, STEPS, auxiliary, epsilon)
    found = objective(logits, x_0, x_t, s, t)
    assert found.shape == (200, 2)
    masked = [int(x) == TYPES for x in x_t] if kind == "absorbing" else [True] * 200
    for i in range(200):
        p = logits[i].softmax(-1).numpy()
        step, own, state = round(float(t[i]) * STEPS), int(x_0[i]), int(x_t[i])
        predictor = np.tile(p, (chain.states, 1))
        if not masked[i]:
            predictor[state] = np.eye(TYPES)[state]  # SUBS: what is there is known
        kl = chain.kl(predictor, step - 1, step)[state, own]
        ce = -(1 - epsilon) * np.log(p[own]) - epsilon * np.log(p).mean()
        end = chain.between(0, STEPS)[own]
        prior = process.prior_probs("cpu").numpy()
        rest = sum(q * np.log(q / r) for q, r in zip(end, prior) if q > 0)
        assert found[i, 0].item() == pytest.approx(kl + auxiliary * ce, abs=1e-9)
        assert found[i, 1].item() == pytest.approx(STEPS * kl + rest, abs=1e-8)
    if kind != "dense":  # which has a mask's state for a chain of its own
        assert objective.masks_only == (kind == "absorbing" and auxiliary == 0)
    if kind == "absorbing" and not auxiliary:
        assert (found[~torch.tensor(masked)] == 0).all()


@pytest.mark.parametrize("steps", [STEPS, None])
@pytest.mark.parametrize("epsilon", [0.0, 0.1])
def test_mdlm_by_the_formula(steps, epsilon):
    process, chain, logits, x_0, x_t, s, t = case("absorbing")
    found = MDLM(process, steps, epsilon)(logits, x_0, x_t, s, t)

    def alpha(time):
        own = [math.cos((x + 0.008) / 1.008 * math.pi / 2) ** 2 for x in (time, 0)]
        return own[0] / own[1]

    for i in range(200):
        if int(x_t[i]) != TYPES:
            assert found[i].tolist() == [0, 0]
            continue
        before, after = float(s[i]), float(t[i])
        if steps is None:
            if after == 1:  # where the slope is that of one side
                continue
            slope = (alpha(after + 1e-6) - alpha(after - 1e-6)) / 2e-6
            weight = -slope / (1 - alpha(after))
        else:
            weight = STEPS * (alpha(before) - alpha(after)) / (1 - alpha(after))
        log_p = logits[i].log_softmax(-1)
        nll = -log_p[x_0[i]].item()
        loss = weight * ((1 - epsilon) * nll - epsilon * log_p.mean().item())
        assert found[i].tolist() == pytest.approx([loss, weight * nll], rel=1e-6)


@pytest.mark.parametrize("kind", ["uniform", "absorbing"])
def test_sedd_by_the_rates(kind):
    """The bracket's sum by the definition; an untrained network finds all types equally likely."""
    process, random, scale = make(kind, LOG_LINEAR), np.random.default_rng(1), 1.0
    objective = SEDD(process)
    assert objective.steps is None and objective.masks_only == (kind == "absorbing")
    for t in (0.2, 0.5, 0.9):
        for x_0, x_t in [(0, 0), (0, 3), (2, process.states - 1)]:
            logits = random.normal(size=5, scale=scale)
            outputs = logits - (math.log(5) if kind == "absorbing" else 0)
            s, own = as_ratios(process, outputs, x_t, t), chain(process, 0, t)[x_0]
            expected = 0.0
            if kind == "uniform" or x_t == process.mask:
                for y in range(process.states):
                    r = own[y] / own[x_t]
                    into = rates(process)[y, x_t] * sigma(process, t)
                    if y != x_t and into > 0:
                        k = r * (np.log(r) - 1) if r > 0 else 0
                        expected += into * (s[y] - (r * np.log(s[y]) if r > 0 else 0) + k)
            time = torch.tensor([t], dtype=torch.float64)
            states = torch.tensor([x_0]), torch.tensor([x_t])
            loss, bound = objective(torch.from_numpy(logits)[None], *states, time, time)[0].tolist()
            assert loss == pytest.approx(expected, rel=1e-5, abs=1e-9)
            end, prior = chain(process, 0, 1 - 1e-12)[x_0], process.prior_probs("cpu").numpy()
            rest = sum(q * np.log(q / p) for q, p in zip(end, prior) if q > 1e-9)
            assert bound - loss == pytest.approx(rest, abs=1e-6)
    nothing = objective(torch.zeros(1, 5), *states, time, time)
    if kind == "absorbing":  # 1 / 5 each: MDLM's cross-entropy
        expected = process.schedule.unmasking_rate(time) * math.log(5)
        assert nothing[0, 0].item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("kind", ["uniform", "absorbing"])
def test_the_bound_of_sedd_is_of_the_score_entropy_whatever_is_trained(kind):
    process, random = make(kind, LOG_LINEAR), torch.Generator().manual_seed(0)
    logits = torch.randn(30, 5, generator=random, dtype=torch.float64)
    x_0, t = torch.randint(5, (30,), generator=random), torch.linspace(0.1, 0.9, 30).double()
    x_t = process.corrupt(x_0, t, torch.rand(30, 2, generator=random))
    states = x_0, x_t, t, t
    entropy, squared = (SEDD(process, loss)(logits, *states) for loss in ("entropy", "squared"))
    torch.testing.assert_close(squared[:, 1], entropy[:, 1])
    ratios = as_log_ratios(process, logits)
    torch.testing.assert_close(squared[:, 0], squared_error(process, ratios, x_0, x_t, t))
    assert not torch.allclose(squared[:, 0], entropy[:, 0])


def test_the_bound_has_no_gradient():
    """What is trained is the loss; the bound of d3pm and sedd is reported alone."""
    sedd = [SEDD(make("uniform"), loss) for loss in ("entropy", "squared")]
    for objective in (D3PM(Uniform(COSINE, 5), 8, 0.1), *sedd):
        logits = torch.randn(6, 5, requires_grad=True)
        x = torch.randint(5, (6,))
        times = torch.full((6,), 0.25, dtype=torch.float64), torch.full((6,), 0.5).double()
        found = objective(logits, x, x.roll(1), *times)
        (expected,) = torch.autograd.grad(found[:, 0].sum(), logits, retain_graph=True)
        (both,) = torch.autograd.grad(found.sum(), logits)
        assert expected.any() and both.equal(expected)


def test_in_float32_it_is_nearly_as_in_float64():
    """Of large vocabularies and at the ends of time, where probabilities are small."""
    n, random = 2000, torch.Generator().manual_seed(0)
    logits = 5 * torch.randn(30, n, generator=random, dtype=torch.float64)
    x_0 = torch.randint(n, (30,), generator=random)
    t = torch.tensor([1 / 1000, 0.5, 1.0], dtype=torch.float64).repeat(10)
    for kind in (Uniform, Absorbing):
        for dtype in (torch.float32, torch.float64):
            process = kind(COSINE, n, dtype)
            x_t = process.corrupt(x_0, t, torch.rand(30, 2, generator=random.manual_seed(1)))
            found = D3PM(process, 1000, 0.01)(logits.to(dtype), x_0, x_t, t - 1 / 1000, t)
            assert found.dtype == dtype and found.isfinite().all()
            if dtype == torch.float32:
                single = found
        for i, scale in enumerate([1, 1000]):  # the bound has the KL times T
            own = single[:, i].double(), found[:, i]
            torch.testing.assert_close(*own, rtol=2e-3, atol=2e-6 * scale)


def test_smoothing_is_torchs():
    logits, targets = torch.randn(7, 5), torch.randint(5, (7,))
    log_p = logits.log_softmax(-1)
    nll = -log_p[torch.arange(7), targets]
    for epsilon in (0.0, 0.3):
        expected = torch.nn.functional.cross_entropy(
            logits, targets, label_smoothing=epsilon, reduction="none"
        )
        torch.testing.assert_close(smoothed(log_p, nll, epsilon), expected)
