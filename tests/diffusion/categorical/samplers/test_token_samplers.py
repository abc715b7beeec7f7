"""Samplers of tokens: the laws of what they draw, and what all of their steps keep."""

import math

import numpy as np
import pytest
import torch
from enumeration import STEPS, build, schedule_named
from pair_laws import DATA, PAIRS, ancestral_law, fits, pair_kernel, pair_outputs, predictors
from score_chains import make
from token_sampling import (
    BOS,
    EOS,
    FIRST_TYPE,
    LENGTHS,
    laid_out,
    noise_of,
    reads_all,
    run,
    split,
    vocabulary,
)

from difformer_plugin.decoding.loop import reverse_process
from difformer_plugin.diffusion.categorical.draft import Draft
from difformer_plugin.diffusion.categorical.samplers import base as module
from difformer_plugin.diffusion.categorical.samplers.ancestral import Ancestral
from difformer_plugin.diffusion.categorical.samplers.base import NOISE_DIM, fill_argmax
from difformer_plugin.diffusion.categorical.samplers.confidence import Confidence
from difformer_plugin.diffusion.categorical.samplers.score_based import TauLeaping, Tweedie
from difformer_plugin.diffusion.categorical.scores import tweedie
from difformer_plugin.diffusion.categorical.times import decoding_times
from difformer_plugin.diffusion.schedules import SCHEDULES
from difformer_plugin.networks.layout import Layout

COSINE = SCHEDULES["cosine"].normalised()
LOG_LINEAR = SCHEDULES["log_linear"].normalised()
DRAWS = 20_000


def pairs_drawn(sampler, predict):
    """The two tokens of each of DRAWS sentences; `predict` gives outputs (N, 2, n) for states."""
    layout, noise = Layout([4] * DRAWS, list(range(DRAWS)), "cpu"), noise_of(DRAWS)

    def predict_all(z, t, previous):
        tokens = z.tokens.view(DRAWS, 4)
        assert (tokens[:, 0] == BOS).all() and (tokens[:, 3] == EOS).all()
        outputs = predict(tokens[:, 1:3] - FIRST_TYPE, t)
        return torch.nn.functional.pad(outputs, (0, 0, 1, 1)).flatten(0, 1)

    end = reverse_process(
        sampler,
        predict_all,
        lambda step: noise(step, (4, NOISE_DIM)).flatten(0, 1),
        layout=lambda: layout,
    )
    types = end.tokens.view(DRAWS, 4)[:, 1:3] - FIRST_TYPE
    assert types.min() >= 0 and types.max() < sampler.vocabulary.types  # no mask, nothing special
    return types


def log_predictors(chain, x_t, t):
    """Logarithms of p(x_0 | x_t) of both positions of DATA, (N, 2, 3)."""
    p = predictors(chain, round(t * STEPS))[:, x_t[:, 0], x_t[:, 1]]
    return torch.from_numpy(p).transpose(0, 1).clamp(min=1e-30).log()


# laws


@pytest.mark.parametrize("count", [1, 3, 8])
@pytest.mark.parametrize("kind", ["uniform", "absorbing"])
def test_ancestral_steps_have_their_law(kind, count):
    schedule = schedule_named("cosine")
    process, chain = build(kind, schedule, types=3)
    times = decoding_times(STEPS, count)
    own = Ancestral(process, times, vocabulary(3), lambda prediction: prediction, temperature=1.0)
    words = pairs_drawn(own, lambda x_t, t: log_predictors(chain, x_t, t))
    expected = ancestral_law(process, chain, (times * STEPS).round().astype(int)).ravel()
    states = words @ torch.tensor([3, 1])
    assert fits(states, expected)
    assert not fits(states, DATA.ravel())


@pytest.mark.parametrize("temperature", [0, 0.5, 2])
@pytest.mark.parametrize("kind", ["uniform", "absorbing"])
def test_one_step_at_a_temperature(kind, temperature):
    """Tokens come from powers of their distributions: at the end x_s is the x~_0 that was drawn."""
    process, chain = build(kind, LOG_LINEAR, types=3)
    arguments = process, decoding_times(STEPS, 1), vocabulary(3), lambda prediction: prediction
    words = pairs_drawn(
        Ancestral(*arguments, temperature=temperature), lambda x, t: log_predictors(chain, x, t)
    )
    marginals = DATA.sum(1), DATA.sum(0)
    if temperature:
        marginals = [p ** (1 / temperature) / (p ** (1 / temperature)).sum() for p in marginals]
        assert fits(words @ torch.tensor([3, 1]), np.outer(*marginals).ravel())
    else:
        assert words.tolist() == [[p.argmax() for p in marginals]] * DRAWS


@pytest.mark.parametrize("sampler", [Tweedie, TauLeaping], ids=lambda kind: kind.name)
@pytest.mark.parametrize("kind", ["uniform", "absorbing"])
def test_score_based_steps_have_their_law(kind, sampler):
    """tau-leaping with Tweedie's step at the end, from matrices."""
    process, count = make(kind, COSINE, types=3), 4
    times = np.linspace(0, 1 - 1e-3, count + 1)
    shift = math.log(3) if kind == "absorbing" else 0.0  # logits of 0 are all equally likely
    own = sampler(
        process, times, vocabulary(3), lambda prediction: prediction + shift, temperature=1.0
    )
    words = pairs_drawn(own, lambda x_t, t: pair_outputs(process, x_t.numpy(), t))
    prior = process.prior_probs("cpu").numpy()
    expected = np.outer(prior, prior).ravel()
    for i in range(count, 0, -1):
        form = sampler.law if i > 1 else tweedie
        expected = expected @ pair_kernel(form, process, times[i - 1], times[i])
    expected = expected.reshape(process.states, -1)[:3, :3].ravel()
    states = words @ torch.tensor([3, 1])
    assert fits(states, expected / expected.sum())
    assert not fits(states, PAIRS.ravel())


@pytest.mark.parametrize("kind", ["uniform", "absorbing"])
def test_a_score_based_move_at_a_temperature(kind):
    """A token stays as often as at temperature 1; where it goes is from a power of the law."""
    process, n = make(kind, types=3), 20_000
    logits = torch.tensor([[0.3, -1.0, 0.9]])
    x_t = process.prior_probs("cpu").argmax().expand(n)
    s, t = (torch.full((n,), v, dtype=torch.float64) for v in (0.3, 0.6))
    own = Tweedie(process, np.array([0, 1]), vocabulary(3), None, temperature=0.5)
    u = torch.rand(n, NOISE_DIM)
    x_s, log_probs = own.move(x_t, logits.expand(n, -1), s, t, u)
    shift = math.log(3) if kind == "absorbing" else 0.0
    p = tweedie(process, (logits - shift), x_t[:1], s[:1], t[:1])[0].double()
    others = p.scatter(0, x_t[:1], 0) ** 2
    expected = others / others.sum() * (1 - p[x_t[0]])
    expected[x_t[0]] = p[x_t[0]]
    assert fits(x_s, expected)
    there = x_s < 3
    leaves = 1 - p[x_t[0]] if kind == "absorbing" else 1.0  # a mask's time is no matter of its type
    torch.testing.assert_close(log_probs[there], (p[x_s[there]] / leaves).log().float())
    assert (log_probs[~there] == 0).all()


def all_samplers(types=6, steps=8):
    names = {
        "ancestral uniform": (Ancestral, "uniform", {}),
        "ancestral absorbing": (Ancestral, "absorbing", {}),
        "tweedie uniform": (Tweedie, "uniform", {}),
        "tweedie absorbing": (Tweedie, "absorbing", {}),
        "tau uniform": (TauLeaping, "uniform", {}),
        "tau absorbing": (TauLeaping, "absorbing", {}),
        "confidence": (Confidence, "absorbing", {}),
        "remasking": (Confidence, "absorbing", {"remasking": True}),
    }
    for name, (kind, process, options) in names.items():
        arguments = make(process, COSINE, types), decoding_times(steps, steps), vocabulary(types)
        for temperature in (0, 0.7):
            own = kind(
                *arguments, lambda prediction: prediction, temperature=temperature, **options
            )
            yield pytest.param(own, id=f"{name} {temperature}")


SAMPLERS = list(all_samplers())


@pytest.mark.parametrize("own", SAMPLERS)
def test_frames_stay_and_tokens_are_types(own):
    """Packed as padded, whole or stopped early; no mask is left, and nothing depends on padding."""
    for early_stopping in (0, 3):
        results = []
        for padded in (False, True):
            layout = laid_out(padded)
            states, end = run(own, layout, len(LENGTHS), early_stopping)
            assert len(states) == 8 - early_stopping
            for state in [*states, end]:
                for length, (tokens, log_probs) in zip(LENGTHS, split(state, layout)):
                    assert len(tokens) == length
                    assert tokens[0] == BOS and tokens[-1] == EOS
                    assert (tokens[1:-1] >= FIRST_TYPE).all() and (
                        tokens <= own.vocabulary.mask
                    ).all()
                    assert log_probs[0] == log_probs[-1] == 0 and (log_probs <= 0).all()
                    assert (log_probs[tokens == own.vocabulary.mask] == 0).all()
            assert (end.tokens < own.vocabulary.mask).all()
            results.append([[*split(state, layout)] for state in [*states, end]])
        for packed, padded in zip(*results):
            for (x, p), (y, q) in zip(packed, padded):
                assert x.equal(y) and p.equal(q)


def leaves_as_drawn(own):
    """Whether a token's log-probability is that with which its type was drawn."""
    return isinstance(own, Ancestral) or (isinstance(own, Tweedie) and own.process.has_mask)


@pytest.mark.parametrize("own", [p for p in SAMPLERS if leaves_as_drawn(p.values[0])])
def test_log_probs_are_those_of_the_draws(own):
    """What the network gave the token when it was drawn last, at whatever time that was."""
    layout = laid_out(False)
    expected, said = torch.zeros(sum(LENGTHS)), []
    run_of = own.logits
    states, _ = run(own, layout, len(LENGTHS))
    noise = noise_of(6).at(8, layout.rows, layout.positions, NOISE_DIM)
    before = own.prior(lambda: noise, layout)
    for state in states:
        log_p = run_of(reads_all(before, layout, 6)).log_softmax(-1)
        words = (state.tokens >= FIRST_TYPE) & (state.tokens < own.vocabulary.mask)
        drawn = words & (
            before.tokens >= (own.vocabulary.mask if own.process.has_mask else FIRST_TYPE)
        )
        own_log_p = log_p.gather(1, (state.tokens - FIRST_TYPE).clamp(0, 5)[:, None])[:, 0]
        expected = torch.where(drawn, own_log_p, torch.where(words, expected, 0))
        torch.testing.assert_close(state.log_probs, expected)
        said.append(int(drawn.sum()))
        before = state
    assert sum(said) >= sum(LENGTHS) - 2 * len(LENGTHS)


@pytest.mark.parametrize("own", SAMPLERS)
def test_a_candidate_by_itself_is_drawn_as_it_is_among_others(own):
    whole = split(run(own, laid_out(False), len(LENGTHS))[1], laid_out(False))
    for i in (0, 3):
        layout = Layout([LENGTHS[i]], [0], "cpu")
        noise = noise_of(len(LENGTHS)).select(torch.tensor([i]))
        end = reverse_process(
            own,
            lambda z, t, previous, layout=layout: reads_all(z, layout, 6),
            lambda k, noise=noise, layout=layout: noise.at(
                k, layout.rows, layout.positions, NOISE_DIM
            ),
            layout=lambda layout=layout: layout,
        )
        assert end.tokens.equal(whole[i][0])


@pytest.mark.parametrize("early_stopping", [0, 3])
@pytest.mark.parametrize("temperature", [0, 0.7])
def test_logits_of_absorbing_tokens_are_computed_once(temperature, early_stopping):
    """Most of the time of a step is theirs: those of masks that stay are not needed."""
    asked = []

    def logits(prediction):
        asked.append(len(prediction))
        return prediction

    arguments = make("absorbing", COSINE, 6), decoding_times(8, 8), vocabulary(6), logits
    layout, noise = laid_out(False), noise_of(len(LENGTHS))
    end = reverse_process(
        Ancestral(*arguments, temperature=temperature),
        lambda z, t, previous: reads_all(z, layout, 6),
        lambda k: noise.at(k, layout.rows, layout.positions, NOISE_DIM),
        early_stopping,
        layout=lambda: layout,
    )
    assert len(asked) == 8 - early_stopping
    assert sum(asked) == sum(LENGTHS) - 2 * len(LENGTHS) == (end.tokens >= FIRST_TYPE).sum()


# the likeliest types


@pytest.mark.parametrize("masks_only", [False, True])
@pytest.mark.parametrize("chunk", [1, 20, 10**6])
def test_filling(masks_only, chunk, monkeypatch):
    monkeypatch.setitem(module.CHUNK_LOGITS, "cpu", chunk)
    own = vocabulary(4)
    tokens = torch.tensor([BOS, 3, 7, 6, 7, EOS, BOS, EOS, BOS, 5, 4, EOS])
    z = Draft(tokens, -torch.arange(12.0))
    prediction, table = torch.randn(12, 5), torch.randn(4, 5)
    sizes = []

    def logits(own):
        sizes.append(len(own))
        return (own @ table.T).double()

    result = fill_argmax(z, prediction, own, logits, masks_only)
    for i, token in enumerate(tokens.tolist()):
        if token < FIRST_TYPE or (masks_only and token != own.mask):
            assert (result.tokens[i], result.log_probs[i]) == (token, -i)
        else:
            p = (table @ prediction[i]).softmax(-1)
            assert result.tokens[i] == FIRST_TYPE + p.argmax()
            torch.testing.assert_close(result.log_probs[i], p.max().log())
    assert sum(sizes) == (2 if masks_only else 6) and max(sizes) <= max(1, chunk // 4)
    assert z.tokens.equal(tokens) and z.log_probs.equal(-torch.arange(12.0))


def test_filling_where_there_is_nothing_to_fill():
    z = Draft(torch.tensor([BOS, EOS]), torch.zeros(2))
    result = fill_argmax(z, torch.randn(2, 5), vocabulary(4), None, False)
    assert result.tokens.equal(z.tokens) and result.log_probs.equal(z.log_probs)
