"""Score entropy: the network predicts ratios of probabilities (Lou et al., 2024, "SEDD").

The forward chain has rates sigma(t) Q, where alpha-bar_t = exp(-sigma-bar(t)), so that
sigma = -alpha-bar' / alpha-bar, and Q = 11^T / n - I (uniform) or Q = 1 e_m^T - I (absorbing), rows
"from". The reverse chain goes from x_t to y at the rate sigma(t) Q(y, x_t) s_y, where s_y is the
ratio p_t(y) / p_t(x_t). The network's output `log_ratios` (M, n) gives it:

- uniform: s_y = exp(log_ratios_y) for y other than x_t; the output at y = x_t is ignored. The
  schedule must end above 0 (`schedules.Floored`), or sigma is infinite.
- absorbing: s_y = alpha-bar_t / (1 - alpha-bar_t) exp(log_ratios_y), so that a perfect network
  returns log_ratios_y = log p(x_0 = y | x_t). Only masks have reverse rates, so rows without a mask
  contribute nothing. sigma alpha-bar_t / (1 - alpha-bar_t) is the schedule's `unmasking_rate`,
  which is finite even where alpha-bar is 0.

Results have the dtype of `log_ratios`; scalars of a row are computed in float64.
"""

from functools import singledispatch
from math import log

import torch
from torch.nn.functional import pad

from difformer_plugin.diffusion.categorical.process import Absorbing, Interpolating, Uniform, at


def as_log_ratios(process: Interpolating, logits: torch.Tensor) -> torch.Tensor:
    """A network's logits (M, n) as `log_ratios`, so that zero logits stand for equal probabilities.

    For the absorbing process they are log-probabilities: 0 becomes log(1 / n).
    """
    return logits - log(process.types) if process.has_mask else logits


@singledispatch
def score_entropy(
    process: Interpolating,
    log_ratios: torch.Tensor,
    x_0: torch.Tensor,
    x_t: torch.Tensor,
    t: torch.Tensor,
) -> torch.Tensor:
    """The integrand of the denoising score entropy, (M,) in nats per unit of time.

    sum over y != x_t of sigma(t) Q(y, x_t) [s_y - r log s_y + K(r)], where
    r = p(y | x_0) / p(x_t | x_0) is the true ratio given x_0, and K(r) = r (log r - 1). No bracket
    is negative. The mean over x_t and t, plus KL(q(x_T | x_0) || p(x_T)), bounds -log p(x_0) from
    above.

    Args:
        process: Uniform or Absorbing.
        log_ratios: (M, n), the network's outputs.
        x_0, x_t: int64 (M,).
        t: float64 (M,).
    Raises:
        NotImplementedError: another process.
    """
    raise NotImplementedError(f"no score entropy of {type(process).__name__}")


@score_entropy.register
def uniform_score_entropy(
    process: Uniform,
    log_ratios: torch.Tensor,
    x_0: torch.Tensor,
    x_t: torch.Tensor,
    t: torch.Tensor,
) -> torch.Tensor:
    """`score_entropy` of the uniform process.

    r has two values: r for each y that is not x_0, and r + excess for y = x_0 unless it is x_t.
    """
    n = process.types
    r, excess = _uniform_ratios(process, x_0, x_t, t)
    constant = (n - 1) * (torch.xlogy(r, r) - r) + torch.xlogy(1 + excess, 1 + excess) - excess
    sum_of_ratios = log_ratios.scatter(1, x_t[:, None], -torch.inf).exp_().sum(-1).double()
    at_x_t, at_x_0 = log_ratios.gather(1, torch.stack([x_t, x_0], dim=1)).double().unbind(1)
    sum_of_logs = log_ratios.sum(-1).double() - at_x_t
    bracket = sum_of_ratios - r * sum_of_logs - excess * at_x_0 + constant
    return (_sigma(process, t) / n * bracket).to(log_ratios.dtype)


@score_entropy.register
def absorbing_score_entropy(
    process: Absorbing,
    log_ratios: torch.Tensor,
    x_0: torch.Tensor,
    x_t: torch.Tensor,
    t: torch.Tensor,
) -> torch.Tensor:
    """`score_entropy` of the absorbing process.

    alpha-bar / (1 - alpha-bar) is a factor of the bracket. If the exp(log_ratios) sum to 1, this is
    MDLM's weighted cross-entropy.
    """
    weight = torch.where(x_t == process.mask, process.schedule.unmasking_rate(t), 0)
    bracket = log_ratios.exp().sum(-1).double() - at(log_ratios, x_0).double() - 1
    return (weight * bracket).to(log_ratios.dtype)


@singledispatch
def squared_error(
    process: Interpolating,
    log_ratios: torch.Tensor,
    x_0: torch.Tensor,
    x_t: torch.Tensor,
    t: torch.Tensor,
) -> torch.Tensor:
    """The integrand of concrete score matching (Meng et al., 2022), (M,), without a unit.

    1/2 sum over y != x_t with Q(y, x_t) > 0 of (s_y - r)^2, with r as in `score_entropy`. Its mean
    over x_0 given x_t is minimal at the true ratios, like that of the score entropy. It bounds
    nothing, and errors at large ratios outweigh all others: as t approaches 0, r grows like 1 / t
    where a token is corrupted.

    Args:
        process: Uniform or Absorbing.
        log_ratios: (M, n), the network's outputs.
        x_0, x_t: int64 (M,).
        t: float64 (M,).
    Raises:
        NotImplementedError: another process.
    """
    raise NotImplementedError(f"no score matching of {type(process).__name__}")


@squared_error.register
def uniform_squared_error(
    process: Uniform,
    log_ratios: torch.Tensor,
    x_0: torch.Tensor,
    x_t: torch.Tensor,
    t: torch.Tensor,
) -> torch.Tensor:
    """`squared_error` of the uniform process."""
    r, excess = (x[:, None].to(log_ratios.dtype) for x in _uniform_ratios(process, x_0, x_t, t))
    errors = log_ratios.scatter(1, x_t[:, None], -torch.inf).exp() - r
    errors = errors.scatter_add(1, x_0[:, None], -excess).scatter(1, x_t[:, None], 0)
    return errors.square().sum(-1) / 2


@squared_error.register
def absorbing_squared_error(
    process: Absorbing,
    log_ratios: torch.Tensor,
    x_0: torch.Tensor,
    x_t: torch.Tensor,
    t: torch.Tensor,
) -> torch.Tensor:
    """`squared_error` of the absorbing process: r is alpha-bar / (1 - alpha-bar) at x_0, else 0."""
    alpha_bar = process.schedule.alpha_bar(t)
    scale = torch.where(x_t == process.mask, alpha_bar / (1 - alpha_bar), 0)
    errors = log_ratios.exp() - torch.nn.functional.one_hot(x_0, process.types)
    return (scale.square() / 2 * errors.square().sum(-1)).to(log_ratios.dtype)


@singledispatch
def tweedie(
    process: Interpolating,
    log_ratios: torch.Tensor,
    x_t: torch.Tensor,
    s: torch.Tensor,
    t: torch.Tensor,
) -> torch.Tensor:
    """p(x_s | x_t), (M, S), exact for one position if the ratios are true (Theorem 4.2).

    Proportional to [exp(-(sigma-bar_t - sigma-bar_s) Q^T) s]_y [Q_{t|s}]_{y, x_t} with s_{x_t} = 1,
    and so to p_s(y) q(x_t | y). Wrong ratios can make it negative; such values are set to 0.

    Args:
        process: Uniform or Absorbing.
        log_ratios: (M, n), the network's outputs.
        x_t: int64 (M,).
        s, t: float64 (M,), s < t. At s = 0 no mask remains.
    Raises:
        NotImplementedError: another process.
    """
    raise NotImplementedError(f"no Tweedie step of {type(process).__name__}")


@tweedie.register
def uniform_tweedie(
    process: Uniform, log_ratios: torch.Tensor, x_t: torch.Tensor, s: torch.Tensor, t: torch.Tensor
) -> torch.Tensor:
    """`tweedie` of the uniform process.

    The ratios with s_{x_t} = 1 are p_t up to a factor, and p_t = a p_s + (1 - a) / n: subtracting
    the uniform part leaves p_s up to a factor.
    """
    marginal = log_ratios.scatter(1, x_t[:, None], 0).softmax(-1)
    a = process.stay_probability(s, t)[:, None]
    stays, redrawn = a.to(marginal.dtype), ((1 - a) / process.types).to(marginal.dtype)
    weights = (marginal - redrawn).clamp_(min=0)
    at_x_t = weights.gather(1, x_t[:, None])
    weights.mul_(redrawn).scatter_add_(1, x_t[:, None], stays * at_x_t)  # times [Q_{t|s}]_{., x_t}
    return weights.div_(weights.sum(-1, keepdim=True))


@tweedie.register
def absorbing_tweedie(
    process: Absorbing,
    log_ratios: torch.Tensor,
    x_t: torch.Tensor,
    s: torch.Tensor,
    t: torch.Tensor,
) -> torch.Tensor:
    """`tweedie` of the absorbing process.

    A mask becomes y with the schedule's unmasking probability times exp(log_ratios_y).
    """
    total = log_ratios.logsumexp(-1).double().exp()
    leaves = process.schedule.unmasking_probability(s, t) * total
    leaves = torch.where(s == 0, 1, leaves) * (x_t == process.mask)
    return _jump(x_t, pad(log_ratios.softmax(-1), (0, 1)), leaves)


@singledispatch
def tau_leap(
    process: Interpolating,
    log_ratios: torch.Tensor,
    x_t: torch.Tensor,
    s: torch.Tensor,
    t: torch.Tensor,
) -> torch.Tensor:
    """p(x_s | x_t), (M, S), with the rates at t kept constant until s.

    A position jumps to y with probability (t - s) sigma(t) Q(y, x_t) s_y and otherwise stays; if
    these probabilities sum to more than 1, they are scaled to 1. Masks can remain at s = 0, so the
    last step needs `tweedie`.

    Args:
        process: Uniform or Absorbing.
        log_ratios: (M, n), the network's outputs.
        x_t: int64 (M,).
        s, t: float64 (M,), s < t.
    Raises:
        NotImplementedError: another process.
    """
    raise NotImplementedError(f"no tau-leaping of {type(process).__name__}")


@tau_leap.register
def uniform_tau_leap(
    process: Uniform, log_ratios: torch.Tensor, x_t: torch.Tensor, s: torch.Tensor, t: torch.Tensor
) -> torch.Tensor:
    """`tau_leap` of the uniform process."""
    others = log_ratios.scatter(1, x_t[:, None], -torch.inf)
    rate = _sigma(process, t) / process.types * others.logsumexp(-1).double().exp()
    return _jump(x_t, others.softmax(-1), (t - s) * rate)


@tau_leap.register
def absorbing_tau_leap(
    process: Absorbing,
    log_ratios: torch.Tensor,
    x_t: torch.Tensor,
    s: torch.Tensor,
    t: torch.Tensor,
) -> torch.Tensor:
    """`tau_leap` of the absorbing process."""
    rate = process.schedule.unmasking_rate(t) * log_ratios.logsumexp(-1).double().exp()
    leaves = (t - s) * rate * (x_t == process.mask)
    return _jump(x_t, pad(log_ratios.softmax(-1), (0, 1)), leaves)


def _uniform_ratios(process, x_0, x_t, t):
    """r of each y other than x_0, and the excess of r at y = x_0 unless it is x_t: float64 (M,)."""
    alpha_bar = process.schedule.alpha_bar(t)
    # p(x_0 | x_0) / p(y | x_0) - 1; infinite at t = 0
    odds = process.types * alpha_bar / (1 - alpha_bar).clamp(min=0)
    uncorrupted = x_t == x_0
    return torch.where(uncorrupted, 1 / (1 + odds), 1), torch.where(uncorrupted, 0, odds)


def _sigma(process, t):
    """-alpha-bar' / alpha-bar, float64 (M,)."""
    return -process.schedule.derivative(t) / process.schedule.alpha_bar(t)


def _jump(x_t, others, leaves):
    """With probability `leaves` (M,), at most 1, a draw of `others` (M, S), else x_t.

    Overwrites `others`.
    """
    leaves = leaves.clamp(max=1)[:, None].to(others.dtype)
    return others.mul_(leaves).scatter_add_(1, x_t[:, None], 1 - leaves)
