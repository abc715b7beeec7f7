"""Brute force for the tests of flexible length: all that can be left of a few sentences."""

import itertools

import torch
from numerics import nodes, numbers

from difformer_plugin.diffusion.insertion.process import closed_up, presence

V = MASK = 2
UP_TO_ONE = {(): 0.3, (0,): 0.5, (1,): 0.2}
UP_TO_TWO = {(): 0.1, (0,): 0.2, (1,): 0.1, (0, 0): 0.15, (0, 1): 0.25, (1, 0): 0.05, (1, 1): 0.15}
UP_TO_THREE = {(): 0.2, (1,): 0.1, (0, 1): 0.2, (1, 1): 0.1, (0, 0, 1): 0.25, (1, 0, 1): 0.15}


def pack(sentences):
    tokens = torch.tensor(list(itertools.chain(*sentences)), dtype=torch.int64)
    return tokens, torch.tensor([len(sentence) for sentence in sentences]).long()


def unpack(tokens, lengths):
    return [tuple(piece.tolist()) for piece in tokens.split(lengths.tolist())]


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
        return (weights * schedule.unmasking_rate(t) * (gaps.sum(-1) + masks.sum(-1))).sum().item()
