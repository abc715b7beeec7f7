"""Noise by sentence: its generator, what it depends on, and its distribution."""

import math
import statistics

import pytest
import torch

from difformer_plugin.diffusion.noise import (
    SentenceNoise,
    _quantiles,
    candidate_keys,
    sentence_keys,
    splitmix64,
    uniform,
)

MASK = 2**64 - 1
# of the reference implementation in C for the seed 1234567 (S. Vigna, prng.di.unimi.it)
PUBLISHED = [
    6457827717110365317,
    3203168211198807973,
    9817491932198370423,
    4593380528125082431,
    16408922859458223821,
]
PAD, BOS, EOS = 1, 0, 2


def plain_splitmix64(state, count):
    """The published algorithm on Python's integers."""
    outputs = []
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) & MASK
        z = state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        outputs.append(z ^ (z >> 31))
    return outputs


def unsigned(tensor):
    return [value & MASK for value in tensor.tolist()]


def noise_of(count, seed=1, candidates=None):
    keys = torch.tensor([seed]).repeat(count)
    return SentenceNoise(keys, torch.arange(count) if candidates is None else candidates)


# the generator


def test_splitmix64_published_outputs():
    assert unsigned(splitmix64(torch.tensor(1234567), 5)) == PUBLISHED


@pytest.mark.parametrize("start", [0, 1, -1, 2**63 - 1, -(2**63), -6148914691236517206])
def test_splitmix64_plain_integers(start):
    assert unsigned(splitmix64(torch.tensor(start), 300)) == plain_splitmix64(start & MASK, 300)


def test_uniform_is_the_upper_bits():
    starts = torch.tensor([5, -9])
    ours = uniform(starts, 50)
    for row, start in zip(ours, starts.tolist()):
        expected = [bits // 2**40 / 2**24 for bits in plain_splitmix64(start & MASK, 50)]
        assert row.tolist() == expected
    many = uniform(torch.arange(100), 1000)
    assert many.min() >= 0 and many.max() < 1
    assert many.mean().item() == pytest.approx(0.5, abs=4 / math.sqrt(12 * many.numel()))


# keys


def keys_of(*rows, seed=1):
    return sentence_keys(torch.tensor(rows), PAD, seed).tolist()


def test_keys_do_not_see_padding_or_batch():
    alone = keys_of([BOS, 7, 8, EOS])
    assert keys_of([PAD, PAD, BOS, 7, 8, EOS]) == alone
    assert keys_of([BOS, 7, 8, EOS, PAD]) == alone
    batch = keys_of([BOS, 9, 9, 9, 9, EOS], [PAD, PAD, BOS, 7, 8, EOS], [BOS, EOS, 1, 1, 1, 1])
    assert batch[1:2] == alone and len(set(batch)) == 3


def test_keys_see_seed_tokens_and_their_order():
    keys = [
        *keys_of([BOS, 7, 8, EOS]),
        *keys_of([BOS, 8, 7, EOS]),
        *keys_of([BOS, 78, EOS]),
        *keys_of([7, 8, EOS]),
        *keys_of([BOS, 7, 8, EOS], seed=2),
        *keys_of([BOS, 7, 8, EOS], seed=-1),
        *keys_of([BOS, 7, 8, EOS], seed=10**30),
    ]
    assert len(set(keys)) == len(keys)


# what the noise depends on


def test_noise_is_the_same_alone_in_a_batch_and_in_another_order():
    keys, candidates = torch.tensor([11, 11, -22, 33]), torch.tensor([0, 1, 0, 2])
    batch = SentenceNoise(keys, candidates)
    order = torch.tensor([3, 1, 0, 2])
    for step in (0, 5, 20):
        whole = batch(step, (9, 4))
        assert whole.shape == (4, 9, 4) and whole.dtype == torch.float32
        assert torch.equal(
            SentenceNoise(keys[order], candidates[order])(step, (9, 4)), whole[order]
        )
        for row in range(4):
            alone = SentenceNoise(keys[row : row + 1], candidates[row : row + 1])
            assert torch.equal(alone(step, (9, 4))[0], whole[row])


def test_a_shorter_sentence_has_a_prefix():
    noise = noise_of(3)
    assert torch.equal(noise(2, (5, 8)), noise(2, (30, 8))[:, :5])


def test_noise_differs_by_key_candidate_and_step():
    noises = [
        SentenceNoise(torch.tensor([key]), torch.tensor([candidate]))(step, (4, 4))
        for key in (1, 2, 3)
        for candidate in (0, 1, 2)
        for step in (0, 1, 2)
    ]
    for i, a in enumerate(noises):
        for b in noises[:i]:
            assert (a != b).float().mean() > 0.9


def test_streams_do_not_overlap():
    """No value of one (candidate, step) reappears shifted in another: bits are a fingerprint."""
    values = torch.stack([noise_of(20)(step, (50, 1)).flatten(1) for step in range(20)]).flatten(
        0, 1
    )
    triples = torch.stack([values[:, :-2], values[:, 1:-1], values[:, 2:]], -1).flatten(0, 1)
    assert len(triples.unique(dim=0)) == len(triples)


def test_noise_is_bit_equal_on_a_gpu(cuda):
    keys, candidates = torch.tensor([11, -(2**62), 33]), torch.tensor([0, 1, 2])
    here, there = SentenceNoise(keys, candidates), SentenceNoise(keys.to(cuda), candidates.to(cuda))
    for step in (0, 7, 2000):
        drawn = there(step, (50, 64))
        assert drawn.device.type == "cuda" and torch.equal(drawn.cpu(), here(step, (50, 64)))
    assert torch.equal(uniform(keys.to(cuda), 100).cpu(), uniform(keys, 100))


# its distribution


@pytest.fixture(scope="module")
def sample():
    """Two million values: 20 candidates of one sentence, 10 steps, 10,000 positions."""
    return torch.stack([noise_of(20, seed=77)(step, (1000, 10)) for step in range(10)])


def test_moments(sample):
    """The first four, within four standard errors of those of N(0, 1)."""
    x, root = sample.double().flatten(), math.sqrt(sample.numel())
    assert abs(x.mean().item()) < 4 / root
    assert abs(x.square().mean().item() - 1) < 4 * math.sqrt(2) / root
    assert abs(x.pow(3).mean().item()) < 4 * math.sqrt(15) / root
    assert abs(x.pow(4).mean().item() - 3) < 4 * math.sqrt(96) / root


def test_the_quantiles_that_are_summed_have_exact_moments():
    """A sum of two of the table's values, each as likely as the other, has mean 0, variance 1."""
    table = _quantiles(torch.device("cpu")).double()
    assert len(table.unique()) == 2**16 and torch.equal(table, -table.flip(0))
    assert 2 * table.square().mean().item() == pytest.approx(1, abs=1e-6)
    for x in (-2.0, -0.3, 1.0):
        share = (table < x).double().mean().item()
        assert share == pytest.approx(statistics.NormalDist(0, 0.5**0.5).cdf(x), abs=1e-4)


def test_kolmogorov_smirnov(sample):
    """The greatest distance to the normal distribution function; 1.63 is the 1 % point."""
    x = sample.flatten().double().sort().values
    cdf = 0.5 * (1 + torch.erf(x / math.sqrt(2)))
    count = len(x)
    above = (torch.arange(1, count + 1) / count - cdf).max()
    below = (cdf - torch.arange(count) / count).max()
    assert max(above, below).item() * math.sqrt(count) < 1.63


@pytest.mark.parametrize("bound", [2.0, 3.0, 4.0, 4.5])
def test_tails(sample, bound):
    for sign in (-1, 1):
        expected = sample.numel() * statistics.NormalDist().cdf(-bound)
        found = (sign * sample > bound).sum().item()
        assert abs(found - expected) < 4 * math.sqrt(expected)


@pytest.mark.parametrize("dimension", [0, 1, 2, 3], ids=["step", "candidate", "position", "unit"])
def test_neighbours_do_not_correlate(sample, dimension):
    """Neither the values nor their squares, between neighbours along each dimension."""
    a = sample.narrow(dimension, 0, sample.shape[dimension] - 1).double()
    b = sample.narrow(dimension, 1, sample.shape[dimension] - 1).double()
    root = math.sqrt(a.numel())
    assert abs((a * b).mean().item()) < 4 / root
    assert abs(((a.square() - 1) * (b.square() - 1)).mean().item()) < 4 * 2 / root


def test_sentences_with_neighbouring_keys_do_not_correlate():
    noise = SentenceNoise(torch.arange(200), torch.zeros(200, dtype=torch.long))(3, (100, 10))
    product = noise[:-1].double() * noise[1:].double()
    assert abs(product.mean().item()) < 4 / math.sqrt(product.numel())


def test_noise_at_some_tokens_is_that_of_the_whole():
    keys, candidates = torch.tensor([5, -7, 5]), torch.tensor([0, 0, 3])
    noise = SentenceNoise(keys, candidates)
    rows, positions = torch.tensor([0, 0, 2, 1, 2]), torch.tensor([0, 6, 3, 1, 2])
    for step in (0, 4):
        whole = noise(step, (7, 5))
        assert torch.equal(noise.at(step, rows, positions, 5), whole[rows, positions])
    chosen = noise.select(torch.tensor([2, 0]))
    assert torch.equal(chosen(1, (7, 5)), noise(1, (7, 5))[[2, 0]])


def test_keys_of_candidates_keep_their_noise():
    """In part 0 a candidate drawn alone has the noise that it has in its sentence."""
    keys = torch.randint(-(2**62), 2**62, (6,))
    candidates = torch.tensor([0, 1, 2, 0, 5, 70])
    whole, none = SentenceNoise(keys, candidates), torch.zeros(6, dtype=torch.long)
    alone = SentenceNoise(candidate_keys(keys, candidates, 0), none)
    assert alone(3, (5, 2)).equal(whole(3, (5, 2)))


def test_keys_of_candidates_differ_by_part_and_candidate():
    keys = torch.arange(3).repeat_interleave(50)
    candidates = torch.arange(50).repeat(3)
    parts = [candidate_keys(keys, candidates, part) for part in range(40)]
    assert len(torch.cat(parts).unique()) == 40 * 150
    first, second = (SentenceNoise(p, 0 * keys)(0, (40, 1)).flatten() for p in parts[:2])
    assert abs(torch.corrcoef(torch.stack([first, second]))[0, 1]) < 0.05
