"""The sampler whose sentences grow: their law, their frame, their greatest length."""

import collections

import numpy as np
import pytest
import torch
from numerics import is_law
from sentences import MASK, UP_TO_THREE, V
from test_insertion_steps import any_predictor, enumerated_law, true_predictor

from difformer_plugin.decoding.loop import reverse_process
from difformer_plugin.diffusion.categorical.samplers.base import NOISE_DIM, Vocabulary
from difformer_plugin.diffusion.categorical.times import decoding_times
from difformer_plugin.diffusion.insertion.sampler import Growing
from difformer_plugin.diffusion.noise import SentenceNoise, uniform_noise
from difformer_plugin.diffusion.schedules import SCHEDULES
from difformer_plugin.networks.layout import Layout

COSINE = SCHEDULES["cosine"].normalised()
LOG_LINEAR = SCHEDULES["log_linear"].normalised()

BOS, EOS, FIRST_TYPE = 0, 2, 3
VOCABULARY = Vocabulary(BOS, EOS, FIRST_TYPE, FIRST_TYPE + V)
COUNT = 8_000


class Decoding:
    """Decoding of sentences that grow, by a network that is a given function of `x_t` and `t`.

    Its predictions are rows (f_1, f_2, log of what is missing after, place).
    """

    def __init__(self, predictor, schedule, steps, room, count, temperature=1.0, padded=False):
        self.predictor, self.schedule, self.padded = predictor, schedule, padded
        keys = torch.arange(count)
        self.noise = SentenceNoise(keys, torch.zeros_like(keys), uniform_noise)
        self.sampler = Growing(
            schedule,
            decoding_times(None, steps),
            VOCABULARY,
            lambda own: own[:, :V],
            self.missing,
            room + 2,
            temperature=temperature,
        )
        self.states = []
        self.lay_out(torch.full((count,), 2))

    def lay_out(self, lengths):
        mask = torch.arange(int(lengths.max()) + 3) < lengths[:, None]
        self.layout = Layout.dense(mask) if self.padded else Layout.packed(mask)

    def sentences(self, z):
        tokens = z.tokens if self.layout.real is None else z.tokens[self.layout.real]
        framed = [own.tolist() for own in tokens.split(self.layout.lengths.tolist())]
        assert all(own[0] == BOS and own[-1] == EOS for own in framed)
        return [tuple(token - FIRST_TYPE for token in own[1:-1]) for own in framed]

    def predict(self, z, t, previous):
        assert previous is None  # the tokens are not those of the step before
        sentences, at = self.sentences(z), self.predictor(max(t, 1e-9))
        alpha = self.schedule.alpha_bar(torch.tensor(t, dtype=torch.float64)).item()
        absent = np.log(1 - alpha + 1e-30)
        known, rows = {}, []
        for x in sentences:
            if x not in known:
                (g, f), own = at(x), np.zeros((len(x) + 2, V + 2))
                own[[i + 1 for i, y in enumerate(x) if y == MASK], :V] = np.log(f + 1e-30)
                own[:-1, V] = np.log(g + 1e-30) - absent
                own[:, V + 1] = np.arange(len(x) + 2)
                known[x] = own
            rows.append(known[x])
        packed = torch.from_numpy(np.concatenate(rows))
        if self.layout.real is None:
            return packed
        padded = packed.new_full((len(self.layout.real), V + 2), torch.nan)
        padded[self.layout.real] = packed
        return padded

    @staticmethod
    def missing(left, right):
        assert right[:, -1].equal(left[:, -1] + 1)  # the two sides of a gap
        return left[:, V]

    def arrange(self, z):
        self.lay_out(z.lengths)
        return z.placed(self.layout)

    def observe(self, k, z, prediction):
        self.states.append((self.sentences(z), z.log_probs))

    def run(self):
        end = reverse_process(
            self.sampler,
            self.predict,
            lambda step: self.noise.at(step, self.layout.rows, self.layout.positions, NOISE_DIM),
            observe=self.observe,
            layout=lambda: self.layout,
            arrange=self.arrange,
        )
        return self.sentences(end)


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("source", ["true", "any"])
def test_sentences_have_their_enumerated_law(source, steps):
    schedule, longest = COSINE, 3
    predictor = any_predictor if source == "any" else true_predictor(UP_TO_THREE, schedule)
    law = enumerated_law(predictor, schedule, steps, longest)
    drawn = collections.Counter(Decoding(predictor, schedule, steps, longest, COUNT).run())
    assert not any(MASK in x for x in drawn) and set(drawn) <= set(law)
    rare = [x for x, p in law.items() if p * COUNT <= 5]
    groups = [[x] for x in law if x not in rare] + [rare] * any(drawn[x] for x in rare)
    counts, p = ([sum(by[x] for x in group) for group in groups] for by in (drawn, law))
    assert len(groups) >= 6 and is_law(np.array(counts), np.array(p))


def test_padding_changes_nothing():
    one, other = (
        Decoding(any_predictor, LOG_LINEAR, 5, 6, 200, padded=padded) for padded in (False, True)
    )
    assert one.run() == other.run()
    assert [x for x, _ in one.states] == [x for x, _ in other.states]


@pytest.mark.parametrize("temperature", [0, 1])
def test_tokens_that_are_there_stay_in_their_order(temperature):
    """A state's tokens are among the next state's, in order, with their log-probabilities."""
    own = Decoding(any_predictor, LOG_LINEAR, 8, 9, 100, temperature)
    own.run()
    assert len(own.states) == 8 + 1  # the last one only fills

    def words(sentence):
        return iter([token for token in sentence if token != MASK])

    for (before, p), (after, q) in zip(own.states, own.states[1:]):
        for x, y in zip(before, after):
            kept = words(y)
            assert all(token in kept for token in words(x))
        assert ((p < 0).sum() <= (q < 0).sum()) and (q <= 0).all()
        known = set(p[p < 0].tolist())
        assert known <= set(q.tolist())
    last, log_probs = own.states[-1]
    assert (log_probs < 0).sum() <= sum(len(x) for x in last)
    if temperature == 0:  # the likeliest of two
        assert (log_probs >= np.log(0.5) - 1e-6).all()


def test_logits_of_a_token_are_computed_once():
    own, asked = Decoding(any_predictor, LOG_LINEAR, 8, 9, 100), []
    logits = own.sampler.logits
    own.sampler.logits = lambda prediction: (asked.append(len(prediction)), logits(prediction))[1]
    found = own.run()
    # The last step is taken twice: once for who observes it.
    assert sum(asked[:-1]) == sum(map(len, found)) > 100


def test_the_longest_is_a_cap():
    """A network that always inserts more fills the room that there is, within the frame."""

    def greedy(t):
        return lambda x: (np.full(len(x) + 1, 1e30), np.full((x.count(MASK), V), 1 / V))

    for room in (0, 1, 7):
        sentences = Decoding(greedy, LOG_LINEAR, 4, room, 20).run()
        assert [len(x) for x in sentences] == [room] * 20
        assert not any(MASK in x for x in sentences)


def test_a_network_that_inserts_nothing():
    def modest(t):
        return lambda x: (np.zeros(len(x) + 1), np.full((x.count(MASK), V), 1 / V))

    own = Decoding(modest, LOG_LINEAR, 4, 7, 20)
    assert own.run() == [()] * 20 and all(p.eq(0).all() for _, p in own.states)
