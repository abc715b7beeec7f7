"""The reverse processes that decoding steps through: their laws, what they keep, mask-predict."""

import math

import numpy as np
import pytest
import torch
from enumeration import STEPS, build, schedule_named
from score_chains import make
from test_discrete_sampling import DATA, fits, law, predictors
from test_score_sampling import PAIRS, pair_kernel, pair_outputs

from difformer_plugin.decoding.loop import reverse_process
from difformer_plugin.diffusion.categorical import samplers as module
from difformer_plugin.diffusion.categorical.draft import Draft
from difformer_plugin.diffusion.categorical.samplers import (
    NUMBERS,
    Ancestral,
    Confident,
    Scored,
    Vocabulary,
    filled,
    rank_in_rows,
)
from difformer_plugin.diffusion.categorical.schedules import Cosine, LogLinear, decoding_times
from difformer_plugin.diffusion.categorical.scores import tau_leap, tweedie
from difformer_plugin.diffusion.noise import SentenceNoise, uniform_noise
from difformer_plugin.networks.layout import Layout

BOS, EOS, FIRST = 0, 2, 3
DRAWS = 20_000


def vocabulary(types):
    return Vocabulary(BOS, EOS, FIRST, FIRST + types)


def noise_of(count, seed=0):
    """The noise of so many sentences, as decoding has it."""
    keys = torch.arange(count) + 1000 * seed
    return SentenceNoise(keys, torch.zeros_like(keys), uniform_noise)


def pairs_drawn(process, predict):
    """The two words of each of DRAWS sentences; `predict` gives outputs (N, 2, n) for states."""
    layout, noise = Layout([4] * DRAWS, list(range(DRAWS)), "cpu"), noise_of(DRAWS)

    def predict_all(z, t, previous):
        tokens = z.tokens.view(DRAWS, 4)
        assert (tokens[:, 0] == BOS).all() and (tokens[:, 3] == EOS).all()
        outputs = predict(tokens[:, 1:3] - FIRST, t)
        return torch.nn.functional.pad(outputs, (0, 0, 1, 1)).flatten(0, 1)

    end = reverse_process(
        process,
        predict_all,
        lambda step: noise(step, (4, NUMBERS)).flatten(0, 1),
        layout=lambda: layout,
    )
    words = end.tokens.view(DRAWS, 4)[:, 1:3] - FIRST
    assert words.min() >= 0 and words.max() < process.vocabulary.types  # no mask, nothing special
    return words


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
    own = Ancestral(process, times, vocabulary(3), lambda prediction: prediction)
    words = pairs_drawn(own, lambda x_t, t: log_predictors(chain, x_t, t))
    expected = law(process, chain, (times * STEPS).round().astype(int)).ravel()
    states = words @ torch.tensor([3, 1])
    assert fits(states, expected)
    assert not fits(states, DATA.ravel())


@pytest.mark.parametrize("temperature", [0, 0.5, 2])
@pytest.mark.parametrize("kind", ["uniform", "absorbing"])
def test_one_step_at_a_temperature(kind, temperature):
    """Words come from powers of their distributions: at the end x_s is the x~ that was drawn."""
    process, chain = build(kind, LogLinear(), types=3)
    arguments = process, decoding_times(STEPS, 1), vocabulary(3), lambda prediction: prediction
    words = pairs_drawn(
        Ancestral(*arguments, temperature), lambda x, t: log_predictors(chain, x, t)
    )
    marginals = DATA.sum(1), DATA.sum(0)
    if temperature:
        marginals = [p ** (1 / temperature) / (p ** (1 / temperature)).sum() for p in marginals]
        assert fits(words @ torch.tensor([3, 1]), np.outer(*marginals).ravel())
    else:
        assert words.tolist() == [[p.argmax() for p in marginals]] * DRAWS


@pytest.mark.parametrize("step", [tweedie, tau_leap], ids=lambda step: step.__name__)
@pytest.mark.parametrize("kind", ["uniform", "absorbing"])
def test_score_based_steps_have_their_law(kind, step):
    """tau-leaping with Tweedie's step at the end, from matrices."""
    process, count = make(kind, Cosine(), types=3), 4
    times = np.linspace(0, 1 - 1e-3, count + 1)
    shift = math.log(3) if kind == "absorbing" else 0.0  # logits of 0 are all equally likely
    own = Scored(process, times, vocabulary(3), lambda prediction: prediction + shift, law=step)
    words = pairs_drawn(own, lambda x_t, t: pair_outputs(process, x_t.numpy(), t))
    prior = process.prior_probs("cpu").numpy()
    expected = np.outer(prior, prior).ravel()
    for i in range(count, 0, -1):
        form = step if i > 1 else tweedie
        expected = expected @ pair_kernel(form, process, times[i - 1], times[i])
    expected = expected.reshape(process.states, -1)[:3, :3].ravel()
    states = words @ torch.tensor([3, 1])
    assert fits(states, expected / expected.sum())
    assert not fits(states, PAIRS.ravel())


@pytest.mark.parametrize("kind", ["uniform", "absorbing"])
def test_a_score_based_move_at_a_temperature(kind):
    """It stays as often as at 1, and goes where a power of the law has it."""
    process, n = make(kind, types=3), 20_000
    logits = torch.tensor([[0.3, -1.0, 0.9]])
    x_t = process.prior_probs("cpu").argmax().expand(n)
    s, t = (torch.full((n,), v, dtype=torch.float64) for v in (0.3, 0.6))
    own = Scored(process, [0, 1], vocabulary(3), None, 0.5)
    u = torch.rand(n, NUMBERS)
    x_s, log_probs = own.move(x_t, logits.expand(n, -1), s, t, u)
    shift = math.log(3) if kind == "absorbing" else 0.0
    p = tweedie(process, (logits - shift), x_t[:1], s[:1], t[:1])[0].double()
    others = p.scatter(0, x_t[:1], 0) ** 2
    expected = others / others.sum() * (1 - p[x_t[0]])
    expected[x_t[0]] = p[x_t[0]]
    assert fits(x_s, expected)
    there = x_s < 3
    torch.testing.assert_close(log_probs[there], p[x_s[there]].log().float())
    assert (log_probs[~there] == 0).all()


# what steps keep


def reads_all(z, layout, types, seed=0, distinct=None):
    """Logits (N, n) that depend on the state, on the place, and on nothing of other candidates.

    Args:
        distinct: so many different rows, that log-probabilities may be equal.
    """
    random = torch.Generator().manual_seed(seed)
    rows = distinct or 997
    table = 2 * torch.randn(rows, types, generator=random)
    real = torch.ones_like(z.tokens, dtype=torch.bool) if layout.real is None else layout.real
    values = (z.tokens * (3 * layout.positions + 1) ** 2) * real
    sums = torch.zeros_like(layout.lengths).index_add(0, layout.rows, values)
    return table[(sums[layout.rows] + 31 * layout.positions) % rows]


def run(own, layout, count, early_stopping=0, distinct=None, seed=0):
    """The states after each step, the last of them made by `finish`, and the end."""
    noise, states = noise_of(count, seed), []

    def observe(k, z, prediction):
        states.append(z)

    def predict(z, t, previous):
        return reads_all(z, layout, own.vocabulary.types, distinct=distinct)

    end = reverse_process(
        own,
        predict,
        lambda step: noise.at(step, layout.rows, layout.positions, NUMBERS),
        early_stopping,
        observe,
        layout=lambda: layout,
    )
    return states, end


LENGTHS = [7, 3, 2, 12, 5, 12]
OWNERS = [0, 0, 1, 1, 2, 2]


def laid_out(padded):
    if not padded:
        return Layout(LENGTHS, OWNERS, "cpu")
    mask = torch.arange(14) < torch.tensor(LENGTHS)[:, None]
    return Layout([14] * len(LENGTHS), OWNERS, "cpu", mask)


def split(draft, layout):
    real = slice(None) if layout.real is None else layout.real
    lengths = layout.lengths.tolist()
    return list(zip(*(x[real].split(lengths) for x in (draft.tokens, draft.log_probs))))


def all_samplers(types=6, steps=8):
    names = {
        "ancestral uniform": (Ancestral, "uniform", {}),
        "ancestral absorbing": (Ancestral, "absorbing", {}),
        "tweedie uniform": (Scored, "uniform", {"law": tweedie}),
        "tweedie absorbing": (Scored, "absorbing", {"law": tweedie}),
        "tau uniform": (Scored, "uniform", {"law": tau_leap}),
        "tau absorbing": (Scored, "absorbing", {"law": tau_leap}),
        "confidence": (Confident, "absorbing", {}),
        "remasking": (Confident, "absorbing", {"remasking": True}),
    }
    for name, (kind, process, options) in names.items():
        arguments = make(process, Cosine(), types), decoding_times(steps, steps), vocabulary(types)
        for temperature in (0, 0.7):
            own = kind(*arguments, lambda prediction: prediction, temperature, **options)
            yield pytest.param(own, id=f"{name} {temperature}")


SAMPLERS = list(all_samplers())


@pytest.mark.parametrize("own", SAMPLERS)
def test_frames_stay_and_words_are_words(own):
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
                    assert (tokens[1:-1] >= FIRST).all() and (tokens <= own.vocabulary.mask).all()
                    assert log_probs[0] == log_probs[-1] == 0 and (log_probs <= 0).all()
                    assert (log_probs[tokens == own.vocabulary.mask] == 0).all()
            assert (end.tokens < own.vocabulary.mask).all()
            results.append([[*split(state, layout)] for state in [*states, end]])
        for packed, padded in zip(*results):
            for (x, p), (y, q) in zip(packed, padded):
                assert x.equal(y) and p.equal(q)


@pytest.mark.parametrize("own", [p for p in SAMPLERS if isinstance(p.values[0], Ancestral)])
def test_log_probs_are_those_of_the_draws(own):
    """Of what the network said of the token, when it was drawn last."""
    layout = laid_out(False)
    expected, said = torch.zeros(sum(LENGTHS)), []
    run_of = own.logits
    states, _ = run(own, layout, len(LENGTHS))
    before = own.prior(noise_of(6).at(8, layout.rows, layout.positions, NUMBERS), layout)
    for state in states:
        log_p = run_of(reads_all(before, layout, 6)).log_softmax(-1)
        words = (state.tokens >= FIRST) & (state.tokens < own.vocabulary.mask)
        drawn = words & (before.tokens >= (own.vocabulary.mask if own.keeps else FIRST))
        own_log_p = log_p.gather(1, (state.tokens - FIRST).clamp(0, 5)[:, None])[:, 0]
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
                k, layout.rows, layout.positions, NUMBERS
            ),
            layout=lambda layout=layout: layout,
        )
        assert end.tokens.equal(whole[i][0])


# confidence


def confident(schedule, steps, types=6, **options):
    temperature = options.pop("temperature", 0.7)
    process = make("absorbing", schedule, types)
    times = decoding_times(steps, steps)
    return Confident(
        process, times, vocabulary(types), lambda prediction: prediction, temperature, **options
    )


@pytest.mark.parametrize("remasking", [False, True])
@pytest.mark.parametrize("schedule", [LogLinear(), Cosine()], ids=["log_linear", "cosine"])
@pytest.mark.parametrize("padded", [False, True])
def test_so_many_masks_are_left(schedule, remasking, padded):
    own, layout = confident(schedule, 9, remasking=remasking), laid_out(padded)
    states, _ = run(own, layout, len(LENGTHS))
    changed, before = 0, None
    for taken, state in enumerate(states, 1):
        s = 1 - taken / 9
        angle = math.cos((s + 0.008) / 1.008 * math.pi / 2) / math.cos(0.008 / 1.008 * math.pi / 2)
        alpha = 1 - s if isinstance(schedule, LogLinear) else angle**2
        now = [tokens for tokens, _ in split(state, layout)]
        for length, tokens in zip(LENGTHS, now):
            masks = (tokens == own.vocabulary.mask).sum()
            assert masks == math.floor((1 - alpha) * (length - 2) + 1e-9)
        if before is not None:
            for old, new in zip(before, now):
                changed += int(((old != new) & (old != own.vocabulary.mask)).sum())
        before = now
    assert (changed > 0) == remasking


def least_likely_first(steps, layout, remasking, distinct, types=6):
    """Masks filled with the likeliest words, of which the least likely become masks again."""
    mask, results = FIRST + types, []
    state = Draft(torch.full((sum(LENGTHS),), mask), torch.zeros(sum(LENGTHS)))
    ends = np.cumsum(LENGTHS)
    for length, end in zip(LENGTHS, ends):
        state.tokens[end - length], state.tokens[end - 1] = BOS, EOS
    for t in range(1, steps + 1):
        log_p = reads_all(state, layout, types, distinct=distinct).log_softmax(-1)
        tokens, scores = state.tokens.tolist(), state.log_probs.tolist()
        masked = [token == mask for token in tokens]
        for i, was in enumerate(masked):
            if was:
                scores[i], best = (x.item() for x in log_p[i].max(-1))
                tokens[i] = FIRST + best
        for length, end in zip(LENGTHS, ends):
            words = range(end - length + 1, end - 1)
            n = len(words) * (steps - t) // steps
            again = words if remasking else [i for i in words if masked[i]]
            for i in sorted(again, key=lambda i: scores[i])[:n]:
                tokens[i], scores[i] = mask, 0.0
        state = Draft(torch.tensor(tokens), torch.tensor(scores))
        results.append(state)
    return results


@pytest.mark.parametrize("distinct", [None, 3], ids=["", "ties"])
@pytest.mark.parametrize("steps", [1, 4, 10])
@pytest.mark.parametrize("padded", [False, True])
def test_with_remasking_and_no_temperature_it_is_mask_predict(padded, steps, distinct):
    """Ghazvininejad et al. (2019), Sec. 3.2, n = N (T - t) / T; in order of place among equals."""
    own, layout = confident(LogLinear(), steps, remasking=True, temperature=0), laid_out(padded)
    states, _ = run(own, layout, len(LENGTHS), distinct=distinct)
    expected = least_likely_first(steps, laid_out(False), True, distinct)
    for state, slow in zip(states, expected, strict=True):
        for (x, p), (y, q) in zip(split(state, layout), split(slow, laid_out(False))):
            assert x.equal(y)
            torch.testing.assert_close(p, q)


@pytest.mark.parametrize("distinct", [None, 3], ids=["", "ties"])
def test_without_remasking_the_least_likely_new_words_wait(distinct):
    own, layout = confident(LogLinear(), 10, temperature=0), laid_out(False)
    states, _ = run(own, layout, len(LENGTHS), distinct=distinct)
    expected = least_likely_first(10, layout, False, distinct)
    assert all(a.tokens.equal(b.tokens) for a, b in zip(states, expected, strict=True))
    remasked = least_likely_first(10, layout, True, distinct)
    assert any(not a.tokens.equal(b.tokens) for a, b in zip(states, remasked))


# parts


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

    result = filled(z, prediction, own, logits, masks_only)
    for i, token in enumerate(tokens.tolist()):
        if token < FIRST or (masks_only and token != own.mask):
            assert (result.tokens[i], result.log_probs[i]) == (token, -i)
        else:
            p = (table @ prediction[i]).softmax(-1)
            assert result.tokens[i] == FIRST + p.argmax()
            torch.testing.assert_close(result.log_probs[i], p.max().log())
    assert sum(sizes) == (2 if masks_only else 6) and max(sizes) <= max(1, chunk // 4)
    assert z.tokens.equal(tokens) and z.log_probs.equal(-torch.arange(12.0))


def test_filling_where_there_is_nothing_to_fill():
    z = Draft(torch.tensor([BOS, EOS]), torch.zeros(2))
    result = filled(z, torch.randn(2, 5), vocabulary(4), None, False)
    assert result.tokens.equal(z.tokens) and result.log_probs.equal(z.log_probs)


def test_ranks_in_rows():
    random = np.random.default_rng(0)
    for count in (1, 2, 60):
        rows = np.sort(random.integers(0, 9, count))
        values = random.choice([0.5, -1.5, 2.0, np.inf], count)
        expected = [
            sum(
                rows[j] == rows[i] and (values[j] < values[i] or (values[j] == values[i] and j < i))
                for j in range(count)
            )
            for i in range(count)
        ]
        found = rank_in_rows(torch.from_numpy(values), torch.from_numpy(rows))
        assert found.tolist() == expected


def test_drafts():
    z = Draft(torch.tensor([0, 3, 4, 2, 0, 5, 2]), -torch.arange(7.0))
    assert len(z) == 7
    rows = torch.tensor([1, 2])
    assert z[rows].tokens.tolist() == [3, 4] and z[rows].log_probs.tolist() == [-1, -2]
    assert z[z.tokens > 2].tokens.tolist() == [3, 4, 5]
    mask = torch.arange(5) < torch.tensor([[4], [3]])
    padded = z.placed(Layout.dense(mask))
    assert padded.tokens.view(2, 5)[mask].equal(z.tokens)
    assert padded.log_probs.view(2, 5)[mask].equal(z.log_probs)
    assert z.placed(Layout.packed(mask)).tokens is z.tokens
    other = Draft(torch.zeros(7, dtype=torch.long), torch.zeros(7))
    kept = other.tokens
    other.copy_(z)
    assert kept.equal(z.tokens) and other.log_probs.equal(z.log_probs)
