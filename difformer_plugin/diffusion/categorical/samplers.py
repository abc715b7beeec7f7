"""Reverse processes of discrete diffusion with a fixed length, as decoding steps through them.

A step draws each position from a law of its own, given the network's prediction for it. The frame
of a target, BOS and EOS, is there from the beginning.
"""

from typing import NamedTuple

import torch
from torch.nn import functional as F

from difformer_plugin.diffusion.categorical.draft import Draft
from difformer_plugin.diffusion.categorical.draws import draw, sharpen
from difformer_plugin.diffusion.categorical.process import at
from difformer_plugin.diffusion.categorical.scores import as_log_ratios, tweedie
from difformer_plugin.diffusion.noise import uniform_noise

CHUNK_LOGITS = {"cpu": 2**22, "cuda": 2**27}  # held at a time
NUMBERS = 3  # uniform numbers that a token needs in a step


class Vocabulary(NamedTuple):
    """Which tokens are types of the process: those from `first` on; `mask` follows the last."""

    bos: int
    eos: int
    first: int
    mask: int

    @property
    def types(self):
        """n."""
        return self.mask - self.first


def predicted(z, prediction, vocabulary, logits, masks_only):
    """The words of a draft that a prediction speaks of, a chunk at a time.

    Args:
        z: Draft; prediction: (N, D).
        logits: function from predictions (m, D) to (m, n).
        masks_only: leave out those that are there already.
    Yields:
        their indices (m,) and float32 logits (m, n).
    """
    least = vocabulary.mask if masks_only else vocabulary.first
    here = (z.tokens >= least).nonzero()[:, 0]
    size = max(1, CHUNK_LOGITS.get(here.device.type, 2**27) // vocabulary.types)
    for chunk in here.split(size) if len(here) else ():
        yield chunk, logits(prediction[chunk]).float()


def filled(z, prediction, vocabulary, logits, masks_only):
    """The draft with the likeliest type at each of its `predicted` words."""
    tokens, log_probs = z.tokens.clone(), z.log_probs.clone()
    for here, own in predicted(z, prediction, vocabulary, logits, masks_only):
        best = F.log_softmax(own, dim=-1).max(-1)
        tokens[here], log_probs[here] = best.indices + vocabulary.first, best.values
    return Draft(tokens, log_probs)


class Reverse:
    """Steps from p(x_s | x_t), given the network's predictions: what all ways of drawing share.

    Args:
        process: categorical.Process.
        times: float64 array (K + 1,), from 0 to 1.
        vocabulary: Vocabulary.
        logits: function from predictions (m, D) to (m, n).
        temperature: of the draws; 0 takes the likeliest.
    """

    draw_noise = staticmethod(uniform_noise)
    grows = False

    def __init__(self, process, times, vocabulary, logits, temperature=1.0):
        self.process, self.times, self.vocabulary = process, times, vocabulary
        self.logits, self.temperature = logits, temperature
        self.timesteps = times[1:]
        self.keeps = process.states > process.types  # what is no mask any more stays

    def __len__(self):
        return len(self.timesteps)

    def prior(self, noise, layout):
        """x_T of all words, between the frame of each candidate."""
        last = layout.lengths[layout.rows] - 1
        tokens = self.process.prior(noise[:, 0]) + self.vocabulary.first
        tokens = torch.where(layout.positions >= last, self.vocabulary.eos, tokens)  # or padding
        tokens = torch.where(layout.positions == 0, self.vocabulary.bos, tokens)
        return Draft(tokens, torch.zeros_like(noise[:, 0]))

    def step(self, z, prediction, k, noise, layout):
        """From the (k + 1)-th time to the k-th."""
        return self.leap(z, prediction, self.times[k + 1], self.times[k], noise, layout)

    def finish(self, z, prediction, k, noise, layout):
        """From the (k + 1)-th time to 0."""
        return self.leap(z, prediction, self.times[k + 1], 0.0, noise(), layout)

    def leap(self, z, prediction, t, s, noise, layout):
        """From the time t to s, both floats."""
        tokens, log_probs = z.tokens.clone(), z.log_probs.clone()
        for here, logits in self.predicted(z, prediction):
            x_t = z.tokens[here] - self.vocabulary.first
            times = torch.tensor([[s], [t]], dtype=torch.float64, device=x_t.device)
            x_s, scores = self.move(x_t, logits, *times.expand(-1, len(here)), noise[here])
            tokens[here], log_probs[here] = x_s + self.vocabulary.first, scores
        return Draft(tokens, log_probs)

    def predicted(self, z, prediction):
        """As the function of that name."""
        return predicted(z, prediction, self.vocabulary, self.logits, self.keeps)

    def move(self, x_t, logits, s, t, u):
        """States x_s (m,) and their log-probabilities (m,), 0 for masks.

        Args:
            x_t: (m,); logits: (m, n); s, t: float64 (m,); u: uniform numbers (m, NUMBERS).
        """
        raise NotImplementedError


class Ancestral(Reverse):
    """x~_0 from p~(x_0 | x_t), then x_s from q(x_s | x_t, x~_0): together p(x_s | x_t)."""

    def move(self, x_t, logits, s, t, u):
        log_p = F.log_softmax(logits, dim=-1)
        x_0 = draw_x_0(log_p, self.temperature, u[:, 0])
        x_s = self.process.step(x_t, x_0, s, t, u[:, 1:])
        there = x_s < self.process.types
        return x_s, at(log_p, x_s * there) * there


class Scored(Reverse):
    """Steps of the score-based form: the analytic (Tweedie) ones, or tau-leaping.

    At a temperature other than 1 a position moves as often as before, but to likelier types.

    Args:
        law: scores.tweedie or scores.tau_leap; the last step is Tweedie's.
    """

    def __init__(self, *args, law=tweedie, **kwargs):
        super().__init__(*args, **kwargs)
        self.law = law

    def move(self, x_t, logits, s, t, u):
        law = tweedie if float(s[0]) == 0 else self.law
        law = law(self.process, as_log_ratios(self.process, logits), x_t, s, t)
        stays = at(law, x_t)
        others = law.scatter(1, x_t[:, None], 0)
        target = draw_x_0(others.clamp(min=1e-30).log(), self.temperature, u[:, 0])
        x_s = torch.where(u[:, 1] < stays, x_t, target)
        there = x_s < self.process.types
        return x_s, at(law, x_s).clamp(min=1e-30).log() * there


class Confident(Ancestral):
    """The absorbing process in the order of confidence, as many masks at a time as it expects.

    Of w words floor((1 - alpha_s) w) are masks at the time s: the least likely ones. With
    remasking, words that are there already may become masks again; with temperature 0 this is
    mask-predict (Ghazvininejad et al., 2019).

    Args:
        remasking: whether they may.
    """

    def __init__(self, *args, remasking=False, **kwargs):
        super().__init__(*args, **kwargs)
        self.remasking = remasking

    def leap(self, z, prediction, t, s, noise, layout):
        first, mask = self.vocabulary.first, self.vocabulary.mask
        tokens, log_probs = z.tokens.clone(), z.log_probs.clone()
        for here, logits in self.predicted(z, prediction):
            log_p = F.log_softmax(logits, dim=-1)
            x_0 = draw_x_0(log_p, self.temperature, noise[here, 0])
            tokens[here], log_probs[here] = x_0 + first, at(log_p, x_0)
        words = z.tokens >= first
        alpha = self.process.schedule.alpha(torch.tensor(s, dtype=torch.float64)).item()
        counts = torch.zeros_like(layout.lengths).index_add_(0, layout.rows, words.long())
        masks = ((1 - alpha) * counts + 1e-9).floor().long()
        # what must not become a mask comes last
        open_ = words if self.remasking else z.tokens == mask
        order = torch.where(open_, log_probs, torch.inf)
        again = rank_in_rows(order, layout.rows) < masks[layout.rows]
        return Draft(
            torch.where(again & open_, mask, tokens), log_probs.masked_fill(again & open_, 0)
        )


def draw_x_0(log_p, temperature, u):
    """A type from each distribution (m, n), at a temperature: int64 (m,)."""
    if temperature == 0:
        return log_p.argmax(-1)
    return draw(sharpen(log_p, temperature), u)


def rank_in_rows(values, rows):
    """The place of each value (N,) among those of its row, from 0; of equal ones the first first.

    Args:
        rows: int64 (N,), not falling.
    """
    order = values.argsort(stable=True)
    order = order[rows[order].argsort(stable=True)]
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order), device=order.device)
    return rank - torch.searchsorted(rows, rows)
