"""What the tests of token samplers share: a network that reads everything, layouts, and runs."""

import torch

from difformer_plugin.decoding.loop import reverse_process
from difformer_plugin.diffusion.categorical.samplers.base import NOISE_DIM, Vocabulary
from difformer_plugin.diffusion.noise import SentenceNoise, uniform_noise
from difformer_plugin.networks.layout import Layout

BOS, EOS, FIRST_TYPE = 0, 2, 3


def vocabulary(types):
    return Vocabulary(BOS, EOS, FIRST_TYPE, FIRST_TYPE + types)


def noise_of(count, seed=0):
    """The noise of so many sentences, as decoding has it."""
    keys = torch.arange(count) + 1000 * seed
    return SentenceNoise(keys, torch.zeros_like(keys), uniform_noise)


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
        lambda step: noise.at(step, layout.rows, layout.positions, NOISE_DIM),
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
