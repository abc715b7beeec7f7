"""Flexible length: tokens go missing as well as masked, and come back (Flex-MDLM).

One schedule serves insertion and unmasking. In data time 1 - t, a position of x_0 is absent until
T1 and a mask until T2, with P(T1 <= 1 - t) = alpha_t; given T1, it is still a mask with
(1 - alpha_t) / (1 - alpha(T1)). The mean of that over T1 is -(1 - alpha_t) log(1 - alpha_t).
What is left of a sentence, closed up, is x_t. The network predicts the token at each mask, and the
expected number of absent tokens in each gap; a loss of either is weighted with `hazard`(t).

Sentences are packed: (N,) tokens one after the other with lengths (B,), without BOS and EOS. A
sentence of l symbols has l + 1 gaps, one after BOS and one after each symbol, and so numbered;
gaps are packed in the same way, (N + B,).
"""

from typing import NamedTuple

import torch

ABSENT, MASKED, TOKEN = 0, 1, 2
MOST = 1023  # insertions in a gap; 2 ** 10 - 1, what ten halvings tell apart


def presence(schedule, t):
    """Probabilities that a position is absent, a mask, its token: float64 (M, 3) at t (M,)."""
    alpha = schedule.alpha(t)
    masked = -torch.special.xlog1py(1 - alpha, -alpha)
    return torch.stack([1 - alpha, masked, alpha - masked], dim=-1)


def corrupt(schedule, t, u):
    """The state of each position: ABSENT, MASKED or TOKEN, int64 (N,).

    With the same u it only ever moves from TOKEN to MASKED to ABSENT as t grows.

    Args:
        t, u: float64 (N,); u uniform in [0, 1).
    """
    absent, _, token = presence(schedule, t).unbind(-1)
    return (u >= absent).long() + (u >= 1 - token)


class ClosedUp(NamedTuple):
    """What is left of B sentences.

    Attributes:
        tokens: int64 (L,), x_t with its masks, packed.
        lengths: int64 (B,).
        targets: int64, the token of x_0 at each mask of `tokens`, in their order.
        missing: int64 (L + B,), the number of absent tokens in each gap, packed.
    """

    tokens: torch.Tensor
    lengths: torch.Tensor
    targets: torch.Tensor
    missing: torch.Tensor


def closed_up(tokens, lengths, states, mask):
    """x_t from x_0 and the state of each of its positions.

    Args:
        tokens: int64 (N,), x_0, packed.
        lengths: int64 (B,), their sum N.
        states: int64 (N,), of `corrupt`.
        mask: the mask's index.
    Returns:
        ClosedUp.
    """
    sentence = torch.arange(len(lengths), device=lengths.device).repeat_interleave(lengths)
    left = states != ABSENT
    # symbols left so far are gaps so far, and each sentence has one more, before its first symbol
    gap = left.cumsum(0) + sentence
    x_t = torch.where(states == MASKED, mask, tokens)[left]
    return ClosedUp(
        x_t,
        torch.bincount(sentence[left], minlength=len(lengths)),
        tokens[states == MASKED],
        torch.bincount(gap[~left], minlength=len(x_t) + len(lengths)),
    )


def bregman(missing, log_expected):
    """phi(a, b) = b - a log b + a log a - a with b = exp(log_expected): 0 at b = a, else more.

    Args:
        missing: (G,), whole numbers a; log_expected: (G,).
    Returns:
        (G,) in nats.
    """
    missing = missing.to(log_expected.dtype)
    return path_kl(missing, log_expected) + torch.xlogy(missing, missing)


def path_kl(missing, log_expected):
    """b - a log b - a: with the gradient of `bregman`, and the smaller bound.

    `bregman` asks when a gap gets a token. Which of its a tokens comes first is a free choice of
    the forward process, so that each insertion's log a belongs to no bound of -log p(x_0): with
    the term of the masks, the integral of hazard times this is the KL divergence of the paths
    given x_0 from the network's, and the entropy of x_0 for true predictions.

    Args and Returns: as those of `bregman`; it can be negative.
    """
    missing = missing.to(log_expected.dtype)
    return log_expected.exp() - missing * (log_expected + 1)


def log_missing(schedule, t, outputs):
    """Logarithms of the numbers of tokens that a network expects to be missing in gaps, (G,).

    A token is absent with probability 1 - alpha_t, which the network need not learn: its outputs
    are relative to that, so that hazard(t) times a number stays finite as t goes to 0.

    Args:
        t: float64 (G,); outputs: (G,).
    """
    absent = (1 - schedule.alpha(t)).clamp(min=1e-30)
    return outputs + absent.log().to(outputs.dtype)


def poisson(mean, u):
    """One number of each Poisson distribution: the smallest whose cumulative probability is over u.

    Args:
        mean: (G,), at least 0; u: (G,), uniform in [0, 1).
    Returns:
        int64 (G,), at most MOST.
    """
    mean, u = mean.double(), u.double()
    low, high = torch.zeros_like(u), torch.full_like(u, MOST)
    for _ in range(MOST.bit_length()):
        middle = ((low + high) / 2).floor()
        enough = torch.special.gammaincc(middle + 1, mean) > u
        low, high = torch.where(enough, low, middle + 1), torch.where(enough, middle, high)
    return high.long()


def inserted(lengths, counts, longest):
    """Where tokens go when masks are put behind them, as far as there is room.

    Args:
        lengths: int64 (B,), of sentences that are packed.
        counts: int64 (N,), the number of masks behind each token.
        longest: the greatest length of a sentence; the rightmost masks are those without room.
    Returns:
        int64 places (N,) of the tokens among those and the masks, and lengths (B,).
    """
    sentence = torch.arange(len(lengths), device=lengths.device).repeat_interleave(lengths)
    before = counts.cumsum(0) - counts
    before = before - before[(lengths.cumsum(0) - lengths)[sentence]]
    counts = counts.minimum((longest - lengths[sentence] - before).clamp(min=0))
    places = torch.arange(len(counts), device=counts.device) + counts.cumsum(0) - counts
    return places, lengths.index_add(0, sentence, counts)
