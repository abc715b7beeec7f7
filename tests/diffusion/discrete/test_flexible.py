"""Flexible length against loops, quadrature, SciPy and enumerated sentences."""

import collections
import itertools
import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from difformer_plugin.diffusion.discrete.flexible import (
    ABSENT,
    MASKED,
    MOST,
    TOKEN,
    bregman,
    closed_up,
    corrupt,
    fill_probability,
    insert_masks,
    path_kl,
    poisson,
    presence,
)
from difformer_plugin.diffusion.discrete.sampling import draw
from difformer_plugin.diffusion.discrete.schedules import Cosine, Linear, LogLinear

V = MASK = 2
UP_TO_ONE = {(): 0.3, (0,): 0.5, (1,): 0.2}
UP_TO_TWO = {(): 0.1, (0,): 0.2, (1,): 0.1, (0, 0): 0.15, (0, 1): 0.25, (1, 0): 0.05, (1, 1): 0.15}
UP_TO_THREE = {(): 0.2, (1,): 0.1, (0, 1): 0.2, (1, 1): 0.1, (0, 0, 1): 0.25, (1, 0, 1): 0.15}
SCHEDULES = [LogLinear(), Cosine(), Linear()]

schedules = pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)


def numbers(*values):
    return torch.tensor(values, dtype=torch.float64)


def pack(sentences):
    tokens = torch.tensor(list(itertools.chain(*sentences)), dtype=torch.int64)
    return tokens, torch.tensor([len(sentence) for sentence in sentences]).long()


def unpack(tokens, lengths):
    return [tuple(piece.tolist()) for piece in tokens.split(lengths.tolist())]


def is_law(counts, law):
    """Whether counts may be drawn from a law, by a chi-square test."""
    expected = law / law.sum() * counts.sum()
    return len(law) == 1 or stats.chisquare(counts, expected).pvalue > 1e-3


# the forward process


@schedules
@pytest.mark.parametrize("t", [0.02, 0.3, 0.7, 0.99])
def test_presence_is_the_integral_over_arrivals(schedule, t):
    """A token comes at the time u > t with density -alpha'(u), and has not been unmasked by t with
    probability (1 - alpha_t) / (1 - alpha_u)."""
    gone = (1 - schedule.alpha(numbers(t))).item()

    def density(u):
        u = numbers(u)
        return (-schedule.slope(u) / (1 - schedule.alpha(u))).item() * gone

    masked, _ = integrate.quad(density, t, 1, epsabs=1e-12)
    found = presence(schedule, numbers(t))[0].numpy()
    np.testing.assert_allclose(found, [gone, masked, 1 - gone - masked], atol=1e-9)


@schedules
def test_presence_at_the_ends(schedule):
    found = presence(schedule, numbers(0, 1e-9, 1 - 1e-9, 1))
    assert found.isfinite().all() and (found >= 0).all()
    torch.testing.assert_close(found.sum(-1), torch.ones(4, dtype=torch.float64))
    torch.testing.assert_close(found[0], numbers(0, 0, 1), atol=1e-12, rtol=0)
    assert found[3].tolist() == [1, 0, 0]


def test_corrupt_follows_presence_and_goes_one_way():
    count, times = 20_000, np.linspace(0, 1, 9)
    u = torch.rand(count, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    before = torch.full((count,), TOKEN)
    for time in times:
        t = numbers(time).repeat(count)
        states = corrupt(Cosine(), t, u)
        assert (states <= before).all()
        before = states
        expected = presence(Cosine(), t[:1])[0].numpy()
        counts = np.bincount(states, minlength=3)
        assert counts[expected < 1e-12].sum() == 0
        possible = expected >= 1e-12
        assert is_law(counts[possible], expected[possible])


def closed_up_by_loops(sentences, states, mask):
    tokens, lengths, targets, missing = [], [], [], []
    for sentence, own in zip(sentences, states):
        left, gaps = [], [0]
        for token, state in zip(sentence, own):
            if state == ABSENT:
                gaps[-1] += 1
                continue
            left.append(mask if state == MASKED else token)
            gaps.append(0)
            if state == MASKED:
                targets.append(token)
        tokens += left
        lengths.append(len(left))
        missing += gaps
    return tokens, lengths, targets, missing


@pytest.mark.parametrize("present", [0.0, 0.3, 0.7, 1.0])
def test_closed_up_is_the_loop(present):
    random = np.random.default_rng(2)
    for count in [0, 1, 2, 30]:
        sentences = [random.integers(0, 50, random.integers(0, 9)).tolist() for _ in range(count)]
        p = [1 - present, present / 2, present / 2]
        states = [random.choice(3, len(sentence), p=p).tolist() for sentence in sentences]
        found = closed_up(*pack(sentences), pack(states)[0], 99)
        expected = closed_up_by_loops(sentences, states, 99)
        assert tuple(part.tolist() for part in found) == expected
        assert all(part.dtype == torch.int64 for part in found)


# the loss


def test_bregman_is_its_definition_and_least_at_the_count():
    a = torch.arange(6).repeat_interleave(200)
    b = torch.linspace(0.01, 9, 200, dtype=torch.float64).repeat(6)
    log_a = np.log(a.clamp(min=1).numpy())
    expected = b.numpy() - a.numpy() * (np.log(b.numpy()) - log_a + 1)
    np.testing.assert_allclose(bregman(a, b.log()).numpy(), expected, atol=1e-12)
    assert (bregman(a, b.log()) > -1e-12).all()
    counts = torch.arange(1, 300)
    at_count = counts.double().log().requires_grad_()
    assert bregman(counts, at_count).abs().max() < 1e-11
    for loss in [bregman, path_kl]:
        (gradient,) = torch.autograd.grad(loss(counts, at_count).sum(), at_count)
        assert gradient.abs().max() < 1e-10
    none = bregman(torch.zeros(3, dtype=torch.int64), torch.tensor([-80.0, -200.0, 3.0]))
    torch.testing.assert_close(none, torch.tensor([0.0, 0.0, math.exp(3)]), atol=1e-30, rtol=1e-6)


def nodes(order=12):
    """Times and weights of an integral over (0, 1) that may be singular at both ends."""
    ends = 10.0 ** np.arange(-10, 0)
    cuts = np.concatenate([[0], ends, [0.5], 1 - ends[::-1], [1]])
    x, w = np.polynomial.legendre.leggauss(order)
    half = np.diff(cuts)[:, None] / 2
    return ((cuts[:-1, None] + half) + half * x).ravel(), (half * w).ravel()


class Enumerated:
    """All that can be left of a data distribution's sentences, and its true predictions."""

    def __init__(self, data):
        cases = [(x, s) for x in data for s in itertools.product(range(3), repeat=len(x))]
        self.states = [states for _, states in cases]
        self.p = numbers(*(data[x] for x, _ in cases))
        left = closed_up(*pack([x for x, _ in cases]), pack(self.states)[0], MASK)
        self.x_t = unpack(left.tokens, left.lengths)
        self.missing, self.targets = left.missing, left.targets
        gaps = [(i, x, g) for i, x in enumerate(self.x_t) for g in range(len(x) + 1)]
        masks = [(i, x, m) for i, x in enumerate(self.x_t) for m, y in enumerate(x) if y == MASK]
        self.gap_case, self.gap, self.gaps = self.index(gaps)
        self.mask_case, self.mask, self.masks = self.index(masks)

    @staticmethod
    def index(places):
        """The case of each place, which distinct place of an x_t it is, and all these."""
        distinct = sorted({place[1:] for place in places})
        number = {place: i for i, place in enumerate(distinct)}
        owner = torch.tensor([place[0] for place in places])
        return owner, torch.tensor([number[place[1:]] for place in places]), distinct

    def joint(self, schedule, t):
        """p(x_0, states), (times, cases)."""
        probs = presence(schedule, t)
        product = torch.stack([probs[:, list(s)].prod(-1) for s in self.states], dim=1)
        return self.p * product

    def predictions(self, joint):
        """Expected absent tokens (times, gaps) and token distributions (times, masks, V)."""
        empty = torch.zeros(len(joint), len(self.gaps), dtype=torch.float64)
        in_gap = joint[:, self.gap_case]
        total = empty.index_add(1, self.gap, in_gap).clamp(min=1e-300)
        g = empty.index_add(1, self.gap, in_gap * self.missing) / total
        f = torch.zeros(len(joint), len(self.masks) * V, dtype=torch.float64)
        f = f.index_add(1, self.mask * V + self.targets, joint[:, self.mask_case])
        f = f.unflatten(1, (-1, V))
        return g, f / f.sum(-1, keepdim=True).clamp(min=1e-300)

    def loss(self, schedule, phi, size=0.0):
        """The integral of the loss for true predictions, or for ones perturbed by a factor."""
        t, weights = (torch.from_numpy(part) for part in nodes())
        joint = self.joint(schedule, t)
        g, f = self.predictions(joint)
        generator = torch.Generator().manual_seed(round(1000 * size))
        log_g = g.clamp(min=1e-200).log()
        log_g += size * torch.randn(g.shape[1:], dtype=torch.float64, generator=generator)
        logits = f.clamp(min=1e-200).log()
        logits += size * torch.randn(f.shape[1:], dtype=torch.float64, generator=generator)
        log_f = logits.log_softmax(-1)
        gaps = joint[:, self.gap_case] * phi(self.missing, log_g[:, self.gap])
        masks = joint[:, self.mask_case] * -log_f[:, self.mask, self.targets]
        return (weights * schedule.hazard(t) * (gaps.sum(-1) + masks.sum(-1))).sum().item()


def entropy(data):
    return stats.entropy(list(data.values()))


def insertion_order(data):
    """The mean of the sum of log a over the insertions that each find a tokens absent in their gap:
    they come in random order, and each splits its gap's absent tokens in two."""
    mean = [0.0]
    for n in range(1, 4):
        halves = [mean[left] + mean[n - 1 - left] for left in range(n)]
        mean.append(math.log(n) + np.mean(halves))
    return sum(p * mean[len(x)] for x, p in data.items())


@schedules
@pytest.mark.parametrize("data", [UP_TO_ONE, UP_TO_TWO, UP_TO_THREE], ids=["1", "2", "3"])
def test_the_true_predictions_reach_the_entropy(schedule, data):
    """The length's included. `path_kl` gives it exactly; `bregman` more, by the order in which the
    tokens are inserted, so by nothing where there is at most one."""
    enumerated = Enumerated(data)
    truth = entropy(data)
    assert enumerated.loss(schedule, path_kl) == pytest.approx(truth, abs=1e-6)
    with_bregman = enumerated.loss(schedule, bregman)
    assert with_bregman == pytest.approx(truth + insertion_order(data), abs=1e-6)
    assert data is UP_TO_ONE or with_bregman > truth + 0.1


@pytest.mark.parametrize("size", [0.01, 0.03, 0.1, 0.3, 1.0])
@pytest.mark.parametrize("phi", [bregman, path_kl])
def test_any_other_predictions_are_worse(phi, size):
    enumerated = Enumerated(UP_TO_TWO)
    truth = enumerated.loss(Cosine(), phi)
    assert enumerated.loss(Cosine(), phi, size) > truth + 0.01 * size**2


# sampling


def test_fill_probability_brings_back_what_presence_says():
    """Absent tokens and masks alike: what was absent or masked is still so with 1 - the factor."""
    s, t = numbers(0, 0.1, 0.5), numbers(0.3, 1, 0.6)
    for schedule in SCHEDULES:
        factor = fill_probability(schedule, s, t)
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
    assert poisson(means, u).tolist() == [0, 0, 0, MOST, MOST]
    assert poisson(means[:0], u[:0]).tolist() == []


def insert_by_loops(sentences, counts, mask, longest):
    counts, results = iter(counts), []
    for i, sentence in enumerate(sentences):
        result = [mask] * next(counts)
        for token in sentence:
            result += [token] + [mask] * next(counts)
        results.append(tuple(result if longest is None else result[: longest[i]]))
    return results


@pytest.mark.parametrize("most", [0, 1, 4])
def test_insert_masks_is_the_loop(most):
    random = np.random.default_rng(4)
    for count in [0, 1, 2, 30]:
        sentences = [random.integers(0, 50, random.integers(0, 6)).tolist() for _ in range(count)]
        tokens, lengths = pack(sentences)
        counts = torch.from_numpy(random.integers(0, most + 1, len(tokens) + count))
        each = torch.from_numpy(random.integers(0, 9, count))
        for longest, plain in [(None, None), (5, [5] * count), (0, [0] * count), (each, each)]:
            found = unpack(*insert_masks(tokens, lengths, counts, 99, longest))
            assert found == insert_by_loops(sentences, counts.tolist(), 99, plain)


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
    """The law of x_s given x_t = x, with what lies beyond the longest cut off: {x_s: p}."""
    law = {(): 1.0}

    def extend(law, choices):
        longer = collections.defaultdict(float)
        for (start, p), (more, q) in itertools.product(law.items(), choices):
            if q > 0:
                longer[(start + more)[:longest]] += p * q
        return longer

    filled = iter(f)
    for symbol, mean in itertools.zip_longest([None, *x], g * fill):
        if symbol == MASK:
            each = [((y,), fill * q) for y, q in enumerate(next(filled))]
            law = extend(law, [*each, ((MASK,), 1 - fill)])
        elif symbol is not None:
            law = extend(law, [((symbol,), 1.0)])
        if mean > 0:  # as many as the longest and more: all the same
            counts = stats.poisson.pmf(range(longest), mean)
            law = extend(law, [((MASK,) * n, q) for n, q in enumerate([*counts, 1 - sum(counts)])])
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
                fill = fill_probability(schedule, numbers(s), numbers(t)).item()
                following = step_law(x, g, f, fill, longest)
            for y, q in following.items():
                after[y] += p * q
        law = after
    return law


def samples(predictor, schedule, steps, longest, count, seed):
    """The same by the functions under test, all sentences at once."""
    generator = torch.Generator().manual_seed(seed)
    tokens, lengths = pack([()] * count)

    def uniform(size):
        return torch.rand(size, dtype=torch.float64, generator=generator)

    for s, t in step_times(steps):
        x, at = unpack(tokens, lengths), predictor(t)
        known = {distinct: at(distinct) for distinct in set(x)}
        g = torch.from_numpy(np.concatenate([known[own][0] for own in x]))
        f = torch.from_numpy(np.concatenate([known[own][1] for own in x]))
        end = s is None
        fill = numbers(1) if end else fill_probability(schedule, numbers(s), numbers(t))
        masks = (tokens == MASK).nonzero()[:, 0]
        chosen = uniform(len(masks)) < fill
        tokens[masks[chosen]] = draw(f, uniform(len(masks)))[chosen]
        if not end:
            counts = poisson(g * fill, uniform(len(g)))
            tokens, lengths = insert_masks(tokens, lengths, counts, MASK, longest)
    return unpack(tokens, lengths)


@pytest.mark.parametrize("steps", [1, 2, 4])
@pytest.mark.parametrize("source", ["true", "any"])
def test_samples_follow_the_enumerated_law(source, steps):
    schedule, longest, count = Cosine(), 3, 20_000
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
    schedule, distances = LogLinear(), []
    predictor = true_predictor(UP_TO_TWO, schedule)
    for steps in [16, 32, 64, 128]:
        law = enumerated_law(predictor, schedule, steps, 3)
        distances.append(sum(abs(law.get(x, 0) - UP_TO_TWO.get(x, 0)) for x in {*law, *UP_TO_TWO}))
    assert distances[-1] < 0.02
    assert all(1.7 < a / b < 2.2 for a, b in itertools.pairwise(distances))
