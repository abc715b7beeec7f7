"""Score entropy: the network predicts ratios of probabilities (Lou et al., 2024, "SEDD").

The chain has the rates sigma(t) Q, with alpha_t = exp(-sigma-bar(t)), sigma = -alpha' / alpha, and
Q = 11^T / n - I (uniform) or Q = 1 e_m^T - I (absorbing), rows "from". The ratio
s_y = p_t(y) / p_t(x_t) takes it back from x_t to y at the rate sigma(t) Q(y, x_t) s_y. From a
network's `log_ratios` (M, n) it is

- uniform: s_y = exp(log_ratios_y); what stands at y = x_t counts for nothing. The schedule must
  not end at 0 (`Floored`), or sigma is infinite.
- absorbing: s_y = alpha_t / (1 - alpha_t) exp(log_ratios_y), so that log p(x_0 = y | x_t) is right.
  Only a mask has such rates, so only rows with x_t = m count. sigma alpha_t / (1 - alpha_t) is the
  schedule's `hazard`, which stays finite where alpha ends at 0.

What is returned has the dtype of `log_ratios`; what belongs to a row is computed in float64.
"""

from functools import singledispatch
from math import log

import torch
from torch.nn.functional import pad

from difformer_plugin.diffusion.categorical.process import Absorbing, Uniform, at


def as_log_ratios(process, logits):
    """A network's logits (M, n) as log-ratios: where it says nothing, no type is likelier.

    For the absorbing process 0 stands for a probability of 1 / n and not of 1.
    """
    return logits - log(process.types) if isinstance(process, Absorbing) else logits


@singledispatch
def score_entropy(process, log_ratios, x_0, x_t, t):
    """The integrand of the denoising score entropy, (M,) in nats per unit of time.

    sum over y != x_t of sigma(t) Q(y, x_t) [s_y - r log s_y + K(r)], with the true ratio given x_0
    r = p(y | x_0) / p(x_t | x_0), and K(r) = r (log r - 1). No bracket is negative. Its mean over
    x_t and t and the prior's KL together bound -log p(x_0) from above.

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
def _(process: Uniform, log_ratios, x_0, x_t, t):
    """r has two values: of the y that are not x_0, and of x_0 unless it is x_t itself."""
    n, alpha = process.types, process.schedule.alpha(t)
    odds = n * alpha / (1 - alpha).clamp(min=0)  # p(x_0 | x_0) / p(y | x_0) - 1; infinite at t = 0
    kept = x_t == x_0
    r = torch.where(kept, 1 / (1 + odds), 1)
    more = torch.where(kept, 0, odds)  # what the ratio of x_0 has more than r
    constant = (n - 1) * (torch.xlogy(r, r) - r) + torch.xlogy(1 + more, 1 + more) - more
    ratios = log_ratios.scatter(1, x_t[:, None], -torch.inf).exp_().sum(-1).double()
    own, right = log_ratios.gather(1, torch.stack([x_t, x_0], dim=1)).double().unbind(1)
    logs = log_ratios.sum(-1).double() - own
    bracket = ratios - r * logs - more * right + constant
    return (_sigma(process, t) / n * bracket).to(log_ratios.dtype)


@score_entropy.register
def _(process: Absorbing, log_ratios, x_0, x_t, t):
    """alpha / (1 - alpha) leaves the bracket: it is MDLM's term where the ratios sum to 1."""
    weight = torch.where(x_t == process.mask, process.schedule.hazard(t), 0)
    bracket = log_ratios.exp().sum(-1).double() - at(log_ratios, x_0).double() - 1
    return (weight * bracket).to(log_ratios.dtype)


@singledispatch
def tweedie(process, log_ratios, x_t, s, t):
    """p(x_s | x_t), (M, S): exact for one position, if the ratios are true.

    [exp(-(sigma-bar_t - sigma-bar_s) Q^T) s]_y [Q_{t|s}]_{y, x_t} with s_{x_t} = 1, which is
    p_s(y) q(x_t | y) but for a factor. Ratios that are not true can make it negative: then it is 0.

    Args:
        process: Uniform or Absorbing.
        log_ratios: (M, n), the network's outputs.
        x_t: int64 (M,).
        s, t: float64 (M,), s < t. No mask is left at s = 0.
    Raises:
        NotImplementedError: another process.
    """
    raise NotImplementedError(f"no Tweedie step of {type(process).__name__}")


@tweedie.register
def _(process: Uniform, log_ratios, x_t, s, t):
    """The ratios, 1 among them, say what p_t is; less what came anew it is as p_s is."""
    marginal = log_ratios.scatter(1, x_t[:, None], 0).softmax(-1)
    a = process.staying(s, t)[:, None]
    stays, anew = a.to(marginal.dtype), ((1 - a) / process.types).to(marginal.dtype)
    weights = (marginal - anew).clamp_(min=0)
    own = weights.gather(1, x_t[:, None])
    weights.mul_(anew).scatter_add_(1, x_t[:, None], stays * own)  # times [Q_{t|s}]_{., x_t}
    return weights.div_(weights.sum(-1, keepdim=True))


@tweedie.register
def _(process: Absorbing, log_ratios, x_t, s, t):
    """A mask becomes y with probability (alpha_s - alpha_t) / (1 - alpha_t) exp(log_ratios_y)."""
    leaves = process.returning(s, t) * log_ratios.logsumexp(-1).double().exp()
    leaves = torch.where(s == 0, 1, leaves) * (x_t == process.mask)
    return _leaving(x_t, pad(log_ratios.softmax(-1), (0, 1)), leaves)


@singledispatch
def tau_leap(process, log_ratios, x_t, s, t):
    """p(x_s | x_t), (M, S), as if the rates stayed as they are at t until s.

    A position jumps to y with probability (t - s) sigma(t) Q(y, x_t) s_y, scaled to 1 in sum where
    that is more, and else stays. It leaves masks at s = 0: `tweedie` is for the last step.

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
def _(process: Uniform, log_ratios, x_t, s, t):
    others = log_ratios.scatter(1, x_t[:, None], -torch.inf)
    rate = _sigma(process, t) / process.types * others.logsumexp(-1).double().exp()
    return _leaving(x_t, others.softmax(-1), (t - s) * rate)


@tau_leap.register
def _(process: Absorbing, log_ratios, x_t, s, t):
    rate = process.schedule.hazard(t) * log_ratios.logsumexp(-1).double().exp()
    leaves = (t - s) * rate * (x_t == process.mask)
    return _leaving(x_t, pad(log_ratios.softmax(-1), (0, 1)), leaves)


def _sigma(process, t):
    """-alpha' / alpha, float64 (M,)."""
    return -process.schedule.slope(t) / process.schedule.alpha(t)


def _leaving(x_t, others, leaves):
    """`others` (M, S) with probability `leaves` (M,), cut to 1, else x_t; overwrites `others`."""
    leaves = leaves.clamp(max=1)[:, None].to(others.dtype)
    return others.mul_(leaves).scatter_add_(1, x_t[:, None], 1 - leaves)
