"""What special corruptions make of diffusion (D3PM, Sec. 4): BERT, autoregressive models."""

import itertools

import numpy as np
import pytest
import torch
from enumeration import TYPES, UNIGRAM, Chain, Dense, divergence, entropy, log, rows, when

from difformer_plugin.diffusion.categorical.draws import draw
from difformer_plugin.diffusion.categorical.process import ForwardProcess

# BERT: 10% of the tokens become masks, 5% any state (K, the mask among them), in one step

MASK, STATES = TYPES, TYPES + 1
MASKED, REPLACED = 0.10, 0.05
PAIRS = np.random.default_rng(3).dirichlet(np.full(TYPES**2, 0.5)).reshape(TYPES, TYPES)
PRIOR = np.append(UNIGRAM / 2, 0.5)  # any fixed one


def bert():
    everywhere = np.ones((STATES, STATES))
    corruption = MASKED * everywhere * np.eye(STATES)[MASK] + REPLACED * everywhere / STATES
    corruption += (1 - MASKED - REPLACED) * np.eye(STATES)
    return Dense(Chain([corruption], TYPES), PRIOR)


def fates(token):
    """What becomes of a token, told as BERT's authors would: (state, probability) of each fate."""
    yield MASK, MASKED
    for state in range(STATES):
        yield state, REPLACED / STATES
    yield token, 1 - MASKED - REPLACED


def masked_language_model(data, network):
    """BERT's loss: -log p(x_0 | x_1) at both positions, by the fates of both tokens.

    Args:
        network: [x_1^1, x_1^2, i, x_0^i], probabilities.
    """
    loss = 0
    for (first, second), share in np.ndenumerate(data):
        for (one, p), (two, q) in itertools.product(fates(first), fates(second)):
            right = network[one, two, 0, first] * network[one, two, 1, second]
            loss -= share * p * q * np.log(right)
    return loss


def one_step_bound(process, data, network):
    """L_vb - L_T of both positions by the plug-in, one step from the time 0 to 1."""
    x_0, y_0, x_1, y_1 = rows(TYPES, TYPES, STATES, STATES)
    forward = process.chain.between(0, 1)
    weights = data[x_0, y_0] * forward[x_0, x_1] * forward[y_0, y_1]
    times = when(0, len(x_0), 1), when(1, len(x_0), 1)
    first = process.kl(x_0, x_1, log(network[x_1, y_1, 0]), *times)
    second = process.kl(y_0, y_1, log(network[x_1, y_1, 1]), *times)
    return weights @ (first + second).numpy()


def test_one_step_with_berts_corruption_is_berts_loss():
    for seed in (0, 1):
        network = np.random.default_rng(seed).dirichlet(np.ones(TYPES), (STATES, STATES, 2))
        found = one_step_bound(bert(), PAIRS, network)
        assert found == pytest.approx(masked_language_model(PAIRS, network))


def test_the_rest_of_its_bound_is_a_constant():
    """All of L_vb = E log q(x_1 | x_0) / (p(x_1) p(x_0 | x_1)), for two networks of one token."""
    process = bert()
    forward = process.chain.between(0, 1)[:TYPES]
    constant = UNIGRAM @ process.prior_kl(torch.arange(TYPES)).numpy()
    assert constant == pytest.approx(UNIGRAM @ divergence(forward, PRIOR))
    x_0, x_1 = rows(TYPES, STATES)
    for seed in (0, 1):
        network = np.random.default_rng(seed).dirichlet(np.ones(TYPES), STATES)
        bound = UNIGRAM @ (forward * np.log(forward / (PRIOR * network.T))).sum(-1)
        terms = process.kl(x_0, x_1, log(network[x_1]), when(0, len(x_0), 1), when(1, len(x_0), 1))
        found = (UNIGRAM[x_0] * forward[x_0, x_1]) @ terms.numpy()
        assert found == pytest.approx(bound - constant)


def test_its_corruption_changes_the_shares_of_tokens_that_it_says():
    u = torch.rand(100_000, 2, generator=torch.Generator().manual_seed(2))
    states = bert().corrupt(torch.full((len(u),), 2), when(1, len(u), 1), u)
    shares = np.bincount(states, minlength=STATES) / len(u)
    other = REPLACED / STATES
    expected = np.full(STATES, other)
    expected[MASK] += MASKED
    expected[2] += 1 - MASKED - REPLACED
    assert shares == pytest.approx(expected, abs=5e-3)
    assert shares[[0, 1, 3, 4]].sum() == pytest.approx(4 * other, rel=0.05)


# Autoregressive models: sequences of N tokens are masked from the right, one in each of N steps

WORDS, LENGTH = 3, 3
GONE = LENGTH * WORDS  # tokens are tagged with their positions: (i, v) is the state i * WORDS + v


class Autoregressive:
    """p(x^i | x^1 ... x^{i-1}) as tables."""

    def __init__(self, seed):
        random = np.random.default_rng(seed)
        shapes = [(WORDS,) * i for i in range(LENGTH)]
        self.tables = [random.dirichlet(np.full(WORDS, 0.7), shape) for shape in shapes]

    def probs(self, prefix):
        return self.tables[len(prefix)][tuple(prefix)]

    def loss(self, sentence):
        """-log p, factor by factor."""
        return -sum(np.log(self.probs(sentence[:i])[word]) for i, word in enumerate(sentence))

    def predict(self, x_t):
        """log p~(x_0^i | x_t) of all positions (N, N words): its own for the first mask.

        A word that is there is copied. What it says of later masks must not matter: anything.
        """
        present = [state % WORDS for state in x_t if state != GONE]
        p = np.zeros((LENGTH, LENGTH, WORDS))
        for i in range(LENGTH):
            if i < len(present):
                p[i, i, present[i]] = 1
            elif i == len(present):
                p[i, i] = self.probs(present)
            else:
                p[i, i] = np.random.default_rng(i).dirichlet(np.ones(WORDS))
        return log(p.reshape(LENGTH, GONE))


def left_to_right():
    """Step t masks the token at the position N - t, counted from 0, whatever it is."""
    matrices = []
    for t in range(1, LENGTH + 1):
        matrix = np.eye(GONE + 1)
        for state in range((LENGTH - t) * WORDS, (LENGTH - t + 1) * WORDS):
            matrix[state] = np.eye(GONE + 1)[GONE]
        matrices.append(matrix)
    return Dense(Chain(matrices, GONE), np.eye(GONE + 1)[GONE])


def tagged(sentence):
    return torch.tensor([i * WORDS + word for i, word in enumerate(sentence)])


SENTENCES = list(itertools.product(range(WORDS), repeat=LENGTH))


@pytest.mark.parametrize("sentence", SENTENCES)
def test_masking_from_the_right_is_the_autoregressive_loss(sentence):
    """Sentence by sentence: each step's term is that of the word which it brings back."""
    process, model, x_0 = left_to_right(), Autoregressive(0), tagged(sentence)
    assert process.prior_kl(x_0).tolist() == [0] * LENGTH
    total = 0
    for t in range(1, LENGTH + 1):
        s, t = when(t - 1, LENGTH, LENGTH), when(t, LENGTH, LENGTH)
        x_t = process.corrupt(x_0, t, torch.rand(LENGTH, 2))
        terms = ForwardProcess.kl(process, x_0, x_t, model.predict(x_t.tolist()), s, t)
        back = (x_t == GONE).nonzero()[0]
        word = -np.log(model.probs(sentence[: back.item()])[sentence[back.item()]])
        assert terms[back].item() == pytest.approx(word)
        assert terms.sum().item() == pytest.approx(word)  # nothing is paid anywhere else
        total += terms.sum().item()
    assert total == pytest.approx(model.loss(sentence))


def distribution(model):
    return np.array([np.exp(-model.loss(sentence)) for sentence in SENTENCES])


@pytest.mark.parametrize("seed", [0, 1])
def test_a_model_pays_the_entropy_of_the_data_and_its_distance_from_them(seed):
    """The bound over a whole language, that of the model with the seed 0."""
    data, model, process = distribution(Autoregressive(0)), Autoregressive(seed), left_to_right()
    found = 0
    for sentence, share in zip(SENTENCES, data):
        x_0 = tagged(sentence)
        for t in range(1, LENGTH + 1):
            times = when(t - 1, LENGTH, LENGTH), when(t, LENGTH, LENGTH)
            x_t = process.corrupt(x_0, times[1], torch.zeros(LENGTH, 2))
            terms = process.kl(x_0, x_t, model.predict(x_t.tolist()), *times)
            found += share * terms.sum().item()
    distance = divergence(data, distribution(model))
    assert (distance > 0.1) == (seed != 0)
    assert found == pytest.approx(entropy(data) + distance)


def test_ancestral_steps_write_from_left_to_right():
    """The known model's own law comes out, one word a step: no more than its tables say."""
    process, model = left_to_right(), Autoregressive(0)
    weights = {(GONE,) * LENGTH: 1.0}
    for t in range(LENGTH, 0, -1):
        s, t = when(t - 1, LENGTH, LENGTH), when(t, LENGTH, LENGTH)
        after = {}
        for x_t, weight in weights.items():
            reverse = process.reverse(torch.tensor(x_t), model.predict(x_t), s, t).numpy()
            for states in itertools.product(*[np.flatnonzero(row) for row in reverse]):
                p = weight * np.prod(reverse[range(LENGTH), states])
                after[states] = after.get(states, 0) + p
        weights = after
    assert len(weights) == len(SENTENCES)
    for sentence in SENTENCES:
        states = tuple(tagged(sentence).tolist())
        assert -np.log(weights[states]) == pytest.approx(model.loss(sentence))
    # and drawn: the guess of a word that is not there yet is forgotten, but for the next one
    x_t, u = torch.full((LENGTH,), GONE), torch.Generator().manual_seed(0)
    for t in range(LENGTH, 0, -1):
        s, now = when(t - 1, LENGTH, LENGTH), when(t, LENGTH, LENGTH)
        guess = draw(model.predict(x_t.tolist()).exp(), torch.rand(LENGTH, generator=u))
        x_t = process.step(x_t, guess, s, now, torch.rand(LENGTH, 2, generator=u))
        assert (x_t == GONE).sum() == t - 1
        assert x_t[LENGTH - t] == guess[LENGTH - t]
