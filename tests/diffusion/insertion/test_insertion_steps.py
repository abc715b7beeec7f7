"""Flexible length: its steps against SciPy, loops and the enumerated laws of sentences."""

import collections
import itertools
import math

import numpy as np
import pytest
import torch
from numerics import is_law, numbers
from scipy import stats
from sentences import MASK, UP_TO_THREE, UP_TO_TWO, Enumerated, V, pack, unpack

from difformer_plugin.diffusion.categorical.draws import draw
from difformer_plugin.diffusion.insertion.process import (
    MAX_INSERTIONS,
    inserted,
    poisson,
    presence,
)
from difformer_plugin.diffusion.schedules import SCHEDULES

COSINE = SCHEDULES["cosine"].normalised()
LINEAR = SCHEDULES["linear"].normalised()
LOG_LINEAR = SCHEDULES["log_linear"].normalised()

START = 9  # before the first gap


def test_returning_brings_back_what_presence_says():
    """Absent tokens and masks alike: what was absent or masked is still so with 1 - the factor."""
    s, t = numbers(0, 0.1, 0.5), numbers(0.3, 1, 0.6)
    for schedule in [LOG_LINEAR, COSINE, LINEAR]:
        factor = schedule.unmasking_probability(s, t)
        before, after = presence(schedule, t), presence(schedule, s)
        torch.testing.assert_close(before[:, 0] * (1 - factor), after[:, 0])
        assert ((factor > 0) & (factor <= 1)).all() and factor[0] == pytest.approx(1)


@pytest.mark.parametrize("mean", [0.0, 3e-9, 0.03, 0.7, 4.0, 55.0, 300.0, 700.0])
def test_poisson_is_the_inverse_of_its_distribution(mean):
    u = torch.rand(500, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    u[:5] = numbers(1e-300, 1e-12, 0.5, 1 - 1e-9, 1 - 1e-12)
    found = poisson(numbers(mean).expand(500), u)
    assert found.dtype == torch.int64
    assert found.tolist() == stats.poisson.ppf(u.numpy(), mean).tolist()


def test_poisson_at_its_ends():
    means = numbers(0, 0, 2, 1e6, math.inf)
    u = torch.tensor([0, 0.9999, 0, 0.5, 0.5])
    assert poisson(means, u).tolist() == [0, 0, 0, MAX_INSERTIONS, MAX_INSERTIONS]
    assert poisson(means[:0], u[:0]).tolist() == []


def insert_by_loops(sentences, counts, mask, longest):
    counts, results = iter(counts), []
    for sentence in sentences:
        result, room = [], max(longest - len(sentence), 0)
        for token in sentence:
            new = min(next(counts), room)
            result, room = result + [token] + [mask] * new, room - new
        results.append(tuple(result))
    return results


def insert(tokens, lengths, counts, longest):
    """The tokens with masks behind them, and the sentences' lengths."""
    places, longer = inserted(lengths, counts, longest)
    found = torch.full((int(longer.sum()),), MASK)
    found[places] = tokens
    return found, longer


@pytest.mark.parametrize("most", [0, 1, 4])
def test_inserting_is_the_loop(most):
    random = np.random.default_rng(4)
    for count in [0, 1, 2, 30]:
        sentences = [random.integers(5, 50, random.integers(1, 6)).tolist() for _ in range(count)]
        tokens, lengths = pack(sentences)
        counts = torch.from_numpy(random.integers(0, most + 1, len(tokens)))
        for longest in [0, 3, 5, 100]:
            found = unpack(*insert(tokens, lengths, counts, longest))
            assert found == insert_by_loops(sentences, counts.tolist(), MASK, longest)


def true_predictor(data, schedule):
    """Of x_t and t: g (gaps,) and f (masks, V). Where the data cannot come: nothing is missing."""
    enumerated = Enumerated(data)
    number_of_gap = {place: i for i, place in enumerate(enumerated.gaps)}
    number_of_mask = {place: i for i, place in enumerate(enumerated.masks)}

    def predict(t):
        g, f = enumerated.predictions(enumerated.joint(schedule, numbers(t)))
        g, f = g[0].numpy(), f[0].numpy()

        def at(x):
            if (x, 0) not in number_of_gap:
                return np.zeros(len(x) + 1), np.full((x.count(MASK), V), 1 / V)
            places = [number_of_mask[x, m] for m, y in enumerate(x) if y == MASK]
            return g[[number_of_gap[x, i] for i in range(len(x) + 1)]], f[places]

        return at

    return predict


def any_predictor(t):
    """Something of every x_t and t, and no data's."""

    def at(x):
        random = np.random.default_rng([round(1000 * t), *x])
        return random.uniform(0, 1.5, len(x) + 1), random.dirichlet(np.ones(V), x.count(MASK))

    return at


def step_law(x, g, f, fill, longest):
    """The law of x_s given x_t = x, without the masks that there is no room for: {x_s: p}."""
    law = {(): 1.0}

    def extend(law, choices, following=0):
        longer = collections.defaultdict(float)
        for (start, p), (more, q) in itertools.product(law.items(), choices):
            if q > 0:
                longer[start + more[: longest - len(start) - following]] += p * q
        return longer

    filled = iter(f)
    for i, (symbol, mean) in enumerate(itertools.zip_longest([None, *x], g * fill)):
        if symbol == MASK:
            each = [((y,), fill * q) for y, q in enumerate(next(filled))]
            law = extend(law, [*each, ((MASK,), 1 - fill)])
        elif symbol is not None:
            law = extend(law, [((symbol,), 1.0)])
        if mean > 0:  # as many as the longest and more: all the same
            counts = [math.exp(-mean) * mean**n / math.factorial(n) for n in range(longest)]
            choices = [((MASK,) * n, q) for n, q in enumerate([*counts, 1 - sum(counts)])]
            law = extend(law, choices, len(x) - i)
    return law


def step_times(steps):
    """The pairs (s, t) of K steps, and the end, where masks are filled and nothing is inserted."""
    times = np.linspace(0, 1, steps + 1)
    return [*zip(times[-2::-1], times[:0:-1]), (None, 1e-9)]


def enumerated_law(predictor, schedule, steps, longest):
    """Of x_0 after K steps from nothing and the end."""
    law = {(): 1.0}
    for s, t in step_times(steps):
        at, after = predictor(t), collections.defaultdict(float)
        for x, p in law.items():
            g, f = at(x)
            if s is None:
                following = step_law(x, 0 * g, f, 1.0, longest)
            else:
                fill = schedule.unmasking_probability(numbers(s), numbers(t)).item()
                following = step_law(x, g, f, fill, longest)
            for y, q in following.items():
                after[y] += p * q
        law = after
    return law


def samples(predictor, schedule, steps, longest, count, seed):
    """The same by the functions under test, all sentences at once."""
    generator = torch.Generator().manual_seed(seed)
    tokens, lengths = pack([(START,)] * count)

    def uniform(size):
        return torch.rand(size, dtype=torch.float64, generator=generator)

    for s, t in step_times(steps):
        x, at = [own[1:] for own in unpack(tokens, lengths)], predictor(t)
        known = {distinct: at(distinct) for distinct in set(x)}
        g = torch.from_numpy(np.concatenate([known[own][0] for own in x]))
        f = torch.from_numpy(np.concatenate([known[own][1] for own in x]))
        end = s is None
        fill = numbers(1) if end else schedule.unmasking_probability(numbers(s), numbers(t))
        masks = (tokens == MASK).nonzero()[:, 0]
        chosen = uniform(len(masks)) < fill
        tokens[masks[chosen]] = draw(f, uniform(len(masks)))[chosen]
        if not end:
            counts = poisson(g * fill, uniform(len(g)))
            tokens, lengths = insert(tokens, lengths, counts, longest + 1)
    return [own[1:] for own in unpack(tokens, lengths)]


@pytest.mark.parametrize("steps", [1, 2, 4])
@pytest.mark.parametrize("source", ["true", "any"])
def test_samples_follow_the_enumerated_law(source, steps):
    schedule, longest, count = COSINE, 3, 10_000
    predictor = any_predictor if source == "any" else true_predictor(UP_TO_THREE, schedule)
    law = enumerated_law(predictor, schedule, steps, longest)
    assert sum(law.values()) == pytest.approx(1)
    drawn = collections.Counter(samples(predictor, schedule, steps, longest, count, seed=5))
    assert not any(MASK in x for x in drawn) and set(drawn) <= set(law)
    rare = [x for x, p in law.items() if p * count <= 5]
    groups = [[x] for x in law if x not in rare] + [rare] * any(drawn[x] for x in rare)
    counts, p = ([sum(by[x] for x in group) for group in groups] for by in (drawn, law))
    assert len(groups) >= 6 and is_law(np.array(counts), np.array(p))


def test_many_steps_give_the_data():
    """The distance from the data's law falls with the step."""
    schedule, distances = LOG_LINEAR, []
    predictor = true_predictor(UP_TO_TWO, schedule)
    for steps in [16, 32, 64]:
        law = enumerated_law(predictor, schedule, steps, 3)
        distances.append(sum(abs(law.get(x, 0) - UP_TO_TWO.get(x, 0)) for x in {*law, *UP_TO_TWO}))
    assert distances[-1] < 0.03
    assert all(1.7 < a / b < 2.2 for a, b in itertools.pairwise(distances))
