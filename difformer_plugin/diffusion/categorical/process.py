"""Categorical forward processes on the types of a vocabulary (Austin et al., 2021, "D3PM").

One token is a state among S: the n types, and where there is one the mask, state n. All positions
are corrupted independently, so tensors have one row a token. Times are float64 tensors (M,) from 0
(data) to 1 (noise), s before t; T steps are the times i / T. Q_{t|s} has its rows "from".
"""

import torch

from difformer_plugin.diffusion.categorical.draws import draw, draw_type

TINY = 1e-30  # what float32 can still take a logarithm of


class Process:
    """A Markov chain: a subclass says what Q_{t|s} is, by rows, by columns and as a map.

    Args:
        types: n.
        states: S.
        dtype: of the distributions; scalars are computed in float64.
    """

    def __init__(self, types, states, dtype=torch.float32):
        self.types, self.states, self.dtype = types, states, dtype

    def row(self, x, s, t):
        """q(x_t | x_s = x), (M, S)."""
        raise NotImplementedError

    def column(self, x, s, t):
        """q(x_t = x | x_s) for each x_s, (M, S)."""
        raise NotImplementedError

    def act(self, v, s, t):
        """v Q_{t|s}, (M, S) -> (M, S)."""
        raise NotImplementedError

    def prior(self, u):
        """x_T from uniform numbers (M,): int64 (M,)."""
        raise NotImplementedError

    def prior_probs(self, device):
        """p(x_T), (S,)."""
        raise NotImplementedError

    def corrupt(self, x_0, t, u):
        """x_t ~ q(x_t | x_0), int64 (M,), from uniform numbers u (M, 2)."""
        return draw(self.row(x_0, torch.zeros_like(t), t), u[:, 0])

    def posterior(self, x_t, x_0, s, t):
        """q(x_s | x_t, x_0), (M, S) (Eq. 3): [Q_{t|s}]_{., x_t} [Q-bar_s]_{x_0, .}, normalised."""
        joint = self.column(x_t, s, t) * self.row(x_0, torch.zeros_like(s), s)
        return joint / joint.sum(-1, keepdim=True)

    def reverse(self, x_t, log_p, s, t):
        """p(x_s | x_t) = sum over x~ of q(x_s | x_t, x~) p~(x~ | x_t), (M, S).

        The paper's Eq. 4 weighs with q(x_s, x_t | x~) and normalises afterwards; only the sum of
        posteriors is the true reverse step where p~ is the true distribution of x_0. What could
        not have become x_t is left out of p~.

        Args:
            log_p: (M, n), log p~(x_0 | x_t).
        """
        zero = torch.zeros_like(s)
        p = torch.nn.functional.pad(log_p.exp(), (0, self.states - self.types))
        reached = self.column(x_t, zero, t)
        weighted = torch.where(reached > 0, p / reached.clamp(min=TINY), 0)
        joint = self.column(x_t, s, t) * self.act(weighted, zero, s)
        return joint / joint.sum(-1, keepdim=True)

    def kl(self, x_0, x_t, log_p, s, t):
        """KL(q(x_s | x_t, x_0) || p(x_s | x_t)), (M,) in nats: a term of L_vb (Eq. 1).

        At s = 0 it is -log p~(x_0 | x_t), its reconstruction term.
        """
        q, p = self.posterior(x_t, x_0, s, t), self.reverse(x_t, log_p, s, t)
        divergence = torch.xlogy(q, q) - torch.where(q > 0, q * p.clamp(min=TINY).log(), 0)
        return torch.where(s == 0, -at(log_p, x_0), divergence.sum(-1))

    def prior_kl(self, x_0):
        """KL(q(x_T | x_0) || p(x_T)), (M,) in nats: L_T of Eq. 1."""
        t = torch.ones(len(x_0), dtype=torch.float64, device=x_0.device)
        q, p = self.row(x_0, torch.zeros_like(t), t), self.prior_probs(x_0.device)
        return (torch.xlogy(q, q) - torch.xlogy(q, p)).sum(-1)

    def step(self, x_t, x_0, s, t, u):
        """x_s ~ q(x_s | x_t, x_0), int64 (M,), from uniform numbers u (M, 2).

        With x_0 drawn from p~(x_0 | x_t), x_s is drawn from `reverse`.
        """
        return draw(self.posterior(x_t, x_0, s, t), u[:, 0])


class Interpolating(Process):
    """Q_{t|s} = a I + (1 - a) 1 pi^T with a = alpha_t / alpha_s: what does not stay is drawn anew.

    Args:
        schedule: Schedule of alpha.
    """

    def __init__(self, schedule, types, states, dtype=torch.float32):
        super().__init__(types, states, dtype)
        self.schedule = schedule

    def staying(self, s, t):
        """alpha_t / alpha_s, float64 (M,)."""
        return self.schedule.alpha(t) / self.schedule.alpha(s).clamp(min=TINY)

    def prior_kl(self, x_0):
        end = torch.ones(1, dtype=torch.float64, device=x_0.device)
        if self.schedule.alpha(end) == 0:  # q(x_T | x_0) is the prior
            return torch.zeros(len(x_0), dtype=self.dtype, device=x_0.device)
        return super().prior_kl(x_0)

    def row(self, x, s, t):
        a = self.staying(s, t)[:, None]
        anew = (1 - a) * self.prior_probs(x.device).double()
        return anew.scatter_add(1, x[:, None], a).to(self.dtype)

    def column(self, x, s, t):
        a = self.staying(s, t)
        anew = (1 - a) * self.prior_probs(x.device).double()[x]
        whole = anew[:, None].expand(-1, self.states)
        return whole.scatter_add(1, x[:, None], a[:, None]).to(self.dtype)

    def act(self, v, s, t):
        a = self.staying(s, t)[:, None].to(v.dtype)
        return a * v + (1 - a) * v.sum(-1, keepdim=True) * self.prior_probs(v.device).to(v.dtype)


class Uniform(Interpolating):
    """Multinomial diffusion: Q-bar_t = alpha_t I + (1 - alpha_t) 11^T / n (App. A.2.1)."""

    def __init__(self, schedule, types, dtype=torch.float32):
        super().__init__(schedule, types, types, dtype)

    def prior(self, u):
        return draw_type(u, self.types)

    def prior_probs(self, device):
        return torch.full((self.types,), 1 / self.types, dtype=self.dtype, device=device)

    def corrupt(self, x_0, t, u):
        stays = u[:, 0] < self.schedule.alpha(t)
        return torch.where(stays, x_0, draw_type(u[:, 1], self.types))

    def step(self, x_t, x_0, s, t, u):
        """The posterior is a mixture: x_t and x_0 (if they are one), x_t, x_0, any type."""
        a, b, n = self.staying(s, t), self.schedule.alpha(s), self.types
        weights = torch.stack(
            [
                a * b * (x_t == x_0) + a * (1 - b) / n,
                (1 - a) * b / n,
                (1 - a) * (1 - b) / n,
            ],
            dim=-1,
        )
        choices = torch.stack([x_t, x_0, draw_type(u[:, 1], n)], dim=-1)
        return at(choices, draw(weights, u[:, 0]))


class Absorbing(Interpolating):
    """Tokens become masks and stay so: Q-bar_t = alpha_t I + (1 - alpha_t) 1 e_m^T (App. A.2.2)."""

    def __init__(self, schedule, types, dtype=torch.float32):
        super().__init__(schedule, types, types + 1, dtype)
        self.mask = types

    def prior(self, u):
        return torch.full(u.shape, self.mask, device=u.device)

    def prior_probs(self, device):
        probs = torch.zeros(self.states, dtype=self.dtype, device=device)
        probs[self.mask] = 1
        return probs

    def corrupt(self, x_0, t, u):
        return torch.where(u[:, 0] < self.schedule.alpha(t), x_0, self.mask)

    def returning(self, s, t):
        """The probability that a mask at t is none at s, float64 (M,)."""
        return self.schedule.returning(s, t)

    def kl(self, x_0, x_t, log_p, s, t):
        """A mask's cross-entropy times `returning`; nothing where x_t has x_0 already."""
        cost = -self.returning(s, t).to(log_p.dtype) * at(log_p, x_0)
        return torch.where(x_t == self.mask, cost, 0)

    def step(self, x_t, x_0, s, t, u):
        returns = (x_t == self.mask) & (u[:, 0] < self.returning(s, t))
        return torch.where(returns, x_0, x_t)


def at(table, index):
    """table[m, index[m]], (M,)."""
    return table.gather(1, index[:, None])[:, 0]
