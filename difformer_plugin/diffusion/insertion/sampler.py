"""The reverse process of flexible length: each step fills masks and inserts others."""

import torch
from torch.nn import functional as F

from difformer_plugin.diffusion.categorical.draft import Draft
from difformer_plugin.diffusion.categorical.process import at
from difformer_plugin.diffusion.categorical.samplers import draw_x_0, predicted
from difformer_plugin.diffusion.insertion.process import inserted, log_missing, poisson
from difformer_plugin.diffusion.noise import uniform_noise

LONGEST_GAP = 5.0  # logarithm of the greatest number of tokens that a gap is taken to lack


class Growing:
    """K steps that fill and insert, and a last one that fills what the others have inserted.

    A sentence begins as its frame, and has the length that has grown.

    Args:
        schedule: Schedule of alpha.
        times: float64 array (K + 1,), from 0 to 1.
        vocabulary: reverse.Vocabulary.
        logits: function from predictions (m, D) to (m, n).
        insertions: function from the predictions (G, D) of the symbols left and right of gaps to
            the outputs (G,) that `log_missing` reads.
        longest: the greatest length of a target, with its frame.
        temperature: of the draws of tokens; 0 takes the likeliest.
    """

    draw_noise = staticmethod(uniform_noise)
    grows = True

    def __init__(self, schedule, times, vocabulary, logits, insertions, longest, temperature=1.0):
        self.schedule, self.times, self.vocabulary = schedule, times, vocabulary
        self.logits, self.insertions = logits, insertions
        self.longest, self.temperature = longest, temperature
        self.timesteps = times

    def __len__(self):
        return len(self.timesteps)

    def prior(self, noise, layout):
        """The frames alone."""
        tokens = torch.where(layout.positions == 0, self.vocabulary.bos, self.vocabulary.eos)
        return Draft(tokens, torch.zeros_like(noise[:, 0]))

    def step(self, z, prediction, k, noise, layout):
        """From the k-th time to the (k - 1)-th: fill each mask with some probability, then insert.

        Returns:
            Draft, one candidate after another without padding, with its `lengths`.
        """
        if k == 0:
            return self.finish(z, prediction, k, lambda: noise, layout)
        s, t = torch.tensor([self.times[k - 1], self.times[k]], dtype=torch.float64)
        chance = self.schedule.returning(s, t).item()
        filled = self.filled(z, prediction, noise, chance)
        real = slice(None) if layout.real is None else layout.real
        tokens, log_probs = filled.tokens[real], filled.log_probs[real]
        prediction, noise, lengths = prediction[real], noise[real], layout.lengths
        gaps = (tokens != self.vocabulary.eos).nonzero()[:, 0]  # each after its symbol
        outputs = self.insertions(prediction[gaps], prediction[gaps + 1])
        expected = log_missing(self.schedule, t, outputs).clamp(max=LONGEST_GAP).exp()
        counts = torch.zeros_like(tokens)
        counts[gaps] = poisson(chance * expected, noise[gaps, 2])
        places, lengths = inserted(lengths, counts, self.longest)
        longer = tokens.new_full((int(lengths.sum()),), self.vocabulary.mask)
        scores = log_probs.new_zeros(len(longer))
        longer[places], scores[places] = tokens, log_probs
        return Draft(longer, scores, lengths)

    def finish(self, z, prediction, k, noise, layout):
        """Every mask filled."""
        return self.filled(z, prediction, noise(), 1.0)

    def filled(self, z, prediction, noise, chance):
        """The draft with each mask filled with this probability."""
        tokens, log_probs = z.tokens.clone(), z.log_probs.clone()
        for here, logits in predicted(z, prediction, self.vocabulary, self.logits, True):
            log_p = F.log_softmax(logits, dim=-1)
            x_0 = draw_x_0(log_p, self.temperature, noise[here, 0])
            fills = noise[here, 1] < chance
            mask = self.vocabulary.mask
            tokens[here] = torch.where(fills, x_0 + self.vocabulary.first, mask)
            log_probs[here] = at(log_p, x_0) * fills
        return Draft(tokens, log_probs)
