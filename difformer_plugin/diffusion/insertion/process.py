"""Flexible length: the forward process masks tokens and deletes them (Flex-MDLM).

One schedule serves both. As t falls from 1 to 0, a position of x_0 is absent at first, becomes a
mask at a time t_1 and its token at a time t_2. P(t_1 >= t) = alpha-bar_t, and given t_1 it is still
a mask at t < t_1 with probability (1 - alpha-bar_t) / (1 - alpha-bar_{t_1}). Over t_1, a position
is a mask with probability -(1 - alpha-bar_t) log(1 - alpha-bar_t). The masks and tokens that are
present, in their order, form x_t. The network predicts the token at each mask and the expected
number of absent tokens in each gap; both losses have the weight `unmasking_rate`(t).

Sentences are packed: N tokens one after the other, with lengths (B,), without BOS and EOS. A
sentence of l symbols has l + 1 gaps in this order: one after BOS and one after each symbol. Gaps
are packed in the same way, (N + B,).
"""

from typing import NamedTuple

import torch

from difformer_plugin.diffusion.schedules import Schedule

ABSENT, MASKED, TOKEN = 0, 1, 2
MAX_INSERTIONS = 1023  # in a gap; 2^10 - 1, so that bisection takes ten steps


def presence(schedule: Schedule, t: torch.Tensor) -> torch.Tensor:
    """The probabilities that a position is absent, a mask, or its token at t (M,): (M, 3)."""
    alpha_bar = schedule.alpha_bar(t)
    masked = -torch.special.xlog1py(1 - alpha_bar, -alpha_bar)
    return torch.stack([1 - alpha_bar, masked, alpha_bar - masked], dim=-1)


def corrupt(schedule: Schedule, t: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
    """The state of each position: ABSENT, MASKED or TOKEN, int64 (N,).

    For the same u the state changes only from TOKEN to MASKED to ABSENT as t grows.

    Args:
        t, u: float64 (N,); u is uniform in [0, 1).
    """
    absent, _, token = presence(schedule, t).unbind(-1)
    return (u >= absent).long() + (u >= 1 - token)


class ClosedUp(NamedTuple):
    """x_t of B sentences: their masks and tokens without the absent positions.

    Attributes:
        tokens: int64 (L,), x_t with its masks, packed.
        lengths: int64 (B,), of x_t.
        targets: int64, the token of x_0 at each mask, in the order of the masks.
        missing: int64 (L + B,), the number of absent tokens in each gap, packed.
    """

    tokens: torch.Tensor
    lengths: torch.Tensor
    targets: torch.Tensor
    missing: torch.Tensor


def closed_up(
    tokens: torch.Tensor, lengths: torch.Tensor, states: torch.Tensor, mask: int
) -> ClosedUp:
    """x_t from x_0 and the state of each of its positions.

    Args:
        tokens: int64 (N,), x_0, packed.
        lengths: int64 (B,), of x_0; they sum to N.
        states: int64 (N,), from `corrupt`.
        mask: the mask's index.
    """
    sentence = torch.arange(len(lengths), device=lengths.device).repeat_interleave(lengths)
    present = states != ABSENT
    # a gap follows each symbol that is present, and each sentence has one more before its first
    gap = present.cumsum(0) + sentence
    x_t = torch.where(states == MASKED, mask, tokens)[present]
    return ClosedUp(
        x_t,
        torch.bincount(sentence[present], minlength=len(lengths)),
        tokens[states == MASKED],
        torch.bincount(gap[~present], minlength=len(x_t) + len(lengths)),
    )


def bregman(missing: torch.Tensor, log_expected: torch.Tensor) -> torch.Tensor:
    """phi(a, b) = b - a log b + a log a - a with b = exp(log_expected): at least 0, and 0 at b = a.

    Args:
        missing: (G,), whole numbers a; log_expected: (G,).
    Returns:
        (G,) in nats.
    """
    missing = missing.to(log_expected.dtype)
    return path_kl(missing, log_expected) + torch.xlogy(missing, missing)


def path_kl(missing: torch.Tensor, log_expected: torch.Tensor) -> torch.Tensor:
    """b - a log b - a: the gradient is that of `bregman`, and the bound is tighter.

    `bregman` scores when a gap gets one of its a tokens. Which of them comes first is a free choice
    of the forward process, so the term a log a is part of no bound on -log p(x_0). Together with
    the loss of the masks, the integral of `unmasking_rate` times this function is the KL divergence
    of the forward paths given x_0 from the network's paths; for true predictions its mean is the
    entropy of x_0.

    Args and Returns: see `bregman`; the result can be negative.
    """
    missing = missing.to(log_expected.dtype)
    return log_expected.exp() - missing * (log_expected + 1)


def log_missing(schedule: Schedule, t: torch.Tensor, outputs: torch.Tensor) -> torch.Tensor:
    """The logarithm of the expected number of missing tokens in each gap, (G,).

    It is the network's output plus log(1 - alpha-bar_t), the log-probability that a token is
    absent. So `unmasking_rate`(t) times the expected number stays finite as t goes to 0.

    Args:
        t: float64 (G,); outputs: (G,), of the network.
    """
    absent = (1 - schedule.alpha_bar(t)).clamp(min=1e-30)
    return outputs + absent.log().to(outputs.dtype)


def poisson(mean: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
    """A draw from each Poisson distribution, by inverting its cumulative distribution function.

    Args:
        mean: (G,), at least 0; u: (G,), uniform in [0, 1).
    Returns:
        int64 (G,), at most MAX_INSERTIONS.
    """
    mean, u = mean.double(), u.double()
    low, high = torch.zeros_like(u), torch.full_like(u, MAX_INSERTIONS)
    for _ in range(MAX_INSERTIONS.bit_length()):
        middle = ((low + high) / 2).floor()
        enough = torch.special.gammaincc(middle + 1, mean) > u
        low, high = torch.where(enough, low, middle + 1), torch.where(enough, middle, high)
    return high.long()


def inserted(
    lengths: torch.Tensor, counts: torch.Tensor, max_length: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Positions of packed tokens after masks were inserted behind them, as far as there is room.

    Args:
        lengths: int64 (B,), of the sentences.
        counts: int64 (N,), the number of masks to insert behind each token.
        max_length: of a sentence; masks without room, the rightmost ones, are dropped.
    Returns:
        int64 (N,), the new index of each token, and int64 (B,), the new lengths.
    """
    sentence = torch.arange(len(lengths), device=lengths.device).repeat_interleave(lengths)
    before = counts.cumsum(0) - counts
    before = before - before[(lengths.cumsum(0) - lengths)[sentence]]
    counts = counts.minimum((max_length - lengths[sentence] - before).clamp(min=0))
    places = torch.arange(len(counts), device=counts.device) + counts.cumsum(0) - counts
    return places, lengths.index_add(0, sentence, counts)
