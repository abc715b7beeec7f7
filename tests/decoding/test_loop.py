"""The reverse process: its order, its end, and its distribution where that has a closed form."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from difformer_plugin.decoding.loop import predictor, reverse_process
from difformer_plugin.decoding.options import DecodingOptions
from difformer_plugin.diffusion.gaussian.process import GaussianProcess
from difformer_plugin.diffusion.gaussian.samplers.ancestral import Ancestral
from difformer_plugin.diffusion.noise import SentenceNoise

STEPS = 10
SHAPE = (4, 3)


@pytest.fixture
def sampler():
    return Ancestral(GaussianProcess.create("sqrt", 100).spaced(STEPS))


def zero_noise(step):
    return torch.zeros(1, *SHAPE)


class Recorder:
    """A prediction of a constant that remembers what it was asked."""

    def __init__(self, answer):
        self.answer, self.calls = answer, []

    def __call__(self, z, time, previous):
        self.calls.append((z, time, previous))
        return self.answer + len(self.calls) - 1  # so that each prediction is another one


@pytest.mark.parametrize("early", [0, 1, 4, STEPS - 1])
def test_order_and_number_of_predictions(sampler, early):
    predict, steps = Recorder(torch.zeros(1, *SHAPE)), []

    def noise(step):
        steps.append(step)
        return torch.zeros(1, *SHAPE)

    result = reverse_process(sampler, predict, noise, early)
    assert len(predict.calls) == STEPS - early
    asked = [time for _, time, _ in predict.calls]
    assert asked == sampler.times[::-1][: STEPS - early].tolist() and asked[0] == 0.99
    assert predict.calls[0][2] is None
    for i, (_, _, previous) in enumerate(predict.calls[1:]):
        assert torch.equal(previous, torch.full_like(previous, i))
    assert torch.equal(result, torch.full_like(result, STEPS - early - 1))
    assert steps == [STEPS, *range(STEPS - 1, early, -1)]  # the last prediction is not noised


def test_states_are_the_steps_of_the_sampler():
    """Every z is one step of the sampler from the last z and prediction, from the scaled prior."""
    own = Ancestral(GaussianProcess.create("sqrt", 100, 3.0).spaced(STEPS))
    random = torch.Generator().manual_seed(0)
    noises = torch.randn(STEPS + 1, 1, *SHAPE, generator=random)
    predict, seen = Recorder(torch.randn(1, *SHAPE)), []
    reverse_process(
        own,
        predict,
        lambda step: noises[step],
        observe=lambda k, z, z_0_hat: seen.append((k, z, z_0_hat)),
    )
    z = 3.0 * noises[STEPS]
    for (asked, _, _), (k, after, z_0_hat) in zip(predict.calls, seen):
        torch.testing.assert_close(asked, z)
        z = own.step(z, z_0_hat, k, lambda k=k: noises[k])
        torch.testing.assert_close(after, z)
    assert [k for k, *_ in seen] == list(range(STEPS - 1, -1, -1))


@pytest.mark.parametrize("early", [0, 3])
def test_observing_changes_nothing(sampler, early):
    truth = torch.randn(2, *SHAPE)
    own = SentenceNoise(torch.tensor([1, 2]), torch.tensor([0, 0]))

    def noise(step):
        return own(step, SHAPE)

    def predict(z, time, previous):
        return 0.5 * z + 0.5 * truth

    seen = []
    plain = reverse_process(sampler, predict, noise, early)
    watched = reverse_process(
        sampler, predict, noise, early, lambda k, z, z_0_hat: seen.append(z_0_hat)
    )
    assert torch.equal(plain, watched) and torch.equal(seen[-1], watched)
    assert len(seen) == STEPS - early


def test_a_perfect_prediction_leads_to_the_truth(sampler):
    """Whatever the noise; and on the way, z has the distribution q(z_s | z_0)."""
    count, truth = 100_000, 1.3
    noise = SentenceNoise(torch.arange(count), torch.zeros(count, dtype=torch.long))
    answer, states = torch.full((count, 1, 1), truth), {}
    result = reverse_process(
        sampler,
        lambda z, time, previous: answer,
        lambda step: noise(step, (1, 1)),
        observe=lambda k, z, z_0_hat: states.update({k: z}),
    )
    assert torch.equal(result, answer)
    # the prior forgets the little of z_0 that z_T still holds, so ends of the chain are compared
    for k in (1, 3, 6):
        alpha_bar = sampler.process.alphas_cumprod[k - 1]
        z = states[k].double()
        assert abs(z.mean().item() - math.sqrt(alpha_bar) * truth) < 4 / math.sqrt(count) + 5e-3
        assert z.var().item() == pytest.approx(1 - alpha_bar, rel=4 * math.sqrt(2 / count) + 5e-3)


def test_the_chain_without_noise_has_a_closed_form(sampler):
    """Of z_T = 0 and the prediction c: each z is c times what the forward process keeps of it."""
    seen = {}
    reverse_process(
        sampler,
        lambda z, time, previous: torch.ones(1, *SHAPE),
        zero_noise,
        observe=lambda k, z, z_0_hat: seen.update({k: z}),
    )
    # E[z_s | z_t] composes to E[z_s | z_T = 0], by Bayes from q(z_T | z_s) q(z_s | z_0)
    last = sampler.process.alphas_cumprod[-1]
    for k in range(1, STEPS):
        alpha_bar = sampler.process.alphas_cumprod[k - 1]
        expected = math.sqrt(alpha_bar) * (1 - last / alpha_bar) / (1 - last)
        torch.testing.assert_close(seen[k], torch.full((1, *SHAPE), expected))
    torch.testing.assert_close(seen[0], torch.ones(1, *SHAPE))


# options that alter the prediction


def refined(prediction, options, calls):
    prediction = prediction + 10 * (calls < options.soft_clamping)
    return prediction.round() if options.clamping else prediction


MODEL = SimpleNamespace(refine=refined)


@pytest.mark.parametrize("fixed, asked", [(None, 0.17), (0.0, 0.0), (0.25, 0.25), (0.999, 0.999)])
def test_fixed_t(fixed, asked):
    calls = []
    options = DecodingOptions(decoding_fixed_t=fixed)
    predict = predictor(MODEL, options, lambda *given: calls.append(given) or given[0] + 1)
    assert predict(torch.ones(1), 0.17, "previous").item() == 2
    assert calls == [(torch.ones(1), asked, "previous")]


@pytest.mark.parametrize("clamping", [False, True])
def test_predictions_are_refined_as_the_model_does_it(clamping):
    options = DecodingOptions(clamping=clamping)
    predict = predictor(MODEL, options, lambda z, time, previous: z + 1)
    assert predict(torch.tensor([0.3]), 0.1, None).item() == pytest.approx(1.0 if clamping else 1.3)


def test_the_calls_of_each_reverse_process_are_counted():
    for _ in range(2):
        predict = predictor(MODEL, DecodingOptions(soft_clamping=2), lambda z, *_: z)
        assert [predict(torch.ones(1), 0.1, None).item() for _ in range(4)] == [11, 11, 1, 1]


def test_any_sampler_will_do():
    """The loop knows nothing of Gaussian diffusion: states here are strings, which grow."""
    sampler = SimpleNamespace(
        times=np.array([0, 0.5, 0.9]),
        prior=lambda noise, layout: f"prior({noise()}, {layout})",
        step=lambda z, prediction, k, noise, layout, previous: f"{z}>{k}",
        finish=lambda z, prediction, k, noise, layout: f"{z}>{noise()} {prediction}",
    )
    seen, before = [], []

    def predict(z, t, previous):
        seen.append(z)
        before.append(previous)
        return f"prediction {t}"

    end = reverse_process(sampler, predict, lambda step: f"noise {step}", layout=lambda: "here")
    assert seen == ["prior(noise 3, here)", "prior(noise 3, here)>2", "prior(noise 3, here)>2>1"]
    assert end == f"{seen[-1]}>noise 0 prediction 0.0"
    assert before == [None, "prediction 0.9", "prediction 0.5"]
    before.clear()
    reverse_process(sampler, predict, str, arrange=lambda z: z + "!")
    assert seen[-1] == "prior(3, None)>2!>1!" and before == [None, None, None]


def test_a_step_gets_the_prediction_before_it():
    """As `previous`; there is none in the first step, nor after candidates have grown."""
    got = []
    sampler = SimpleNamespace(
        times=np.array([0, 0.5, 0.9]),
        prior=lambda noise, layout: "z",
        step=lambda z, prediction, k, noise, layout, previous: got.append((prediction, previous)),
        finish=lambda z, prediction, k, noise, layout: z,
    )
    reverse_process(sampler, lambda z, t, previous: t, str, observe=lambda *given: None)
    assert got == [(0.9, None), (0.5, 0.9), (0.0, 0.5)]
    got.clear()
    reverse_process(sampler, lambda z, t, previous: t, str, arrange=lambda z: z)
    assert got == [(0.9, None), (0.5, None)]


def test_rows_that_are_left_out_are_predicted_no_more(sampler):
    """Rows are left out one after another; the others end as they would without them."""
    noises = torch.randn(STEPS + 1, 3, 2, generator=torch.Generator().manual_seed(1))
    here, shapes = torch.arange(3), []

    def predict(z, time, previous):
        shapes.append(len(z))
        return 0.3 * z + 0.1 * time + (0 if previous is None else previous)

    def narrow(k, z, prediction):
        nonlocal here
        if k not in (7, 4):
            return None
        here = here[:-1]
        return torch.arange(len(here))

    narrowed = reverse_process(sampler, predict, lambda step: noises[step][here], narrow=narrow)
    assert shapes == [3] * (STEPS - 7) + [2] * 3 + [1] * 4
    alone = reverse_process(sampler, predict, lambda step: noises[step][:1])
    torch.testing.assert_close(narrowed, alone)
    nobody = reverse_process(
        sampler, predict, lambda step: noises[step], narrow=lambda k, z, prediction: torch.arange(0)
    )
    assert len(nobody) == 0
