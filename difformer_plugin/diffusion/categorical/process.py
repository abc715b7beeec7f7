"""Categorical forward processes on the types of a vocabulary (Austin et al., 2021, "D3PM").

A token is in one of S states: the n types, and where the process has one, the mask, which is state
n. All positions are corrupted independently, so tensors have one row for each token. Times are
float64 tensors (M,) from 0 (data) to 1 (noise), with s < t; T steps are the times i / T. The rows
of a transition matrix Q_{t|s} are "from", its columns "to"; Q-bar_t is Q_{t|0}.
"""

import torch

from difformer_plugin.diffusion.categorical.draws import draw, draw_type
from difformer_plugin.diffusion.schedules import Schedule

TINY = 1e-30  # a small number that is still normal in float32, so that its logarithm is finite


class ForwardProcess:
    """A Markov chain; a subclass gives Q_{t|s} by rows, by columns and as a linear map.

    Args:
        types: n, the number of types.
        states: S, the number of states.
        dtype: of the distributions; scalars are computed in float64.
    """

    has_mask = False  # whether the last state is a mask, to which nothing but types returns

    def __init__(self, types: int, states: int, dtype: torch.dtype = torch.float32):
        self.types, self.states, self.dtype = types, states, dtype

    def row(self, x: torch.Tensor, s: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """q(x_t | x_s = x), (M, S)."""
        raise NotImplementedError

    def column(self, x: torch.Tensor, s: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """q(x_t = x | x_s) for each x_s, (M, S)."""
        raise NotImplementedError

    def act(self, v: torch.Tensor, s: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """v Q_{t|s}, (M, S) -> (M, S)."""
        raise NotImplementedError

    def prior(self, u: torch.Tensor) -> torch.Tensor:
        """x_T drawn from p(x_T): int64 (M,), from uniform numbers (M,)."""
        raise NotImplementedError

    def prior_probs(self, device: torch.device) -> torch.Tensor:
        """p(x_T), (S,)."""
        raise NotImplementedError

    def corrupt(self, x_0: torch.Tensor, t: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
        """x_t drawn from q(x_t | x_0): int64 (M,), from uniform numbers (M, 2)."""
        return draw(self.row(x_0, torch.zeros_like(t), t), u[:, 0])

    def moving(self, s: torch.Tensor, t: torch.Tensor, u: torch.Tensor) -> torch.Tensor | None:
        """Which tokens `step` can move, known without x_0: bool (M,); None if any can.

        Args:
            u: uniform numbers (M, 2), those of the step.
        """
        return None

    def posterior(
        self, x_t: torch.Tensor, x_0: torch.Tensor, s: torch.Tensor, t: torch.Tensor
    ) -> torch.Tensor:
        """q(x_s | x_t, x_0), (M, S) (Eq. 3): [Q_{t|s}]_{., x_t} [Q-bar_s]_{x_0, .}, normalised."""
        joint = self.column(x_t, s, t) * self.row(x_0, torch.zeros_like(s), s)
        return joint / joint.sum(-1, keepdim=True)

    def reverse(
        self, x_t: torch.Tensor, log_p: torch.Tensor, s: torch.Tensor, t: torch.Tensor
    ) -> torch.Tensor:
        """p(x_s | x_t), the sum over x~ of q(x_s | x_t, x~) p~(x~ | x_t), (M, S).

        The paper's Eq. 4 has q(x_s, x_t | x~) instead and normalises afterwards. Only the sum of
        posteriors is the true reverse step when p~ is the true distribution of x_0. An x~ that
        cannot become x_t is left out.

        Args:
            log_p: (M, n), log p~(x_0 | x_t).
        """
        zero = torch.zeros_like(s)
        p = torch.nn.functional.pad(log_p.exp(), (0, self.states - self.types))
        reached = self.column(x_t, zero, t)
        weighted = torch.where(reached > 0, p / reached.clamp(min=TINY), 0)
        joint = self.column(x_t, s, t) * self.act(weighted, zero, s)
        return joint / joint.sum(-1, keepdim=True)

    def kl(
        self,
        x_0: torch.Tensor,
        x_t: torch.Tensor,
        log_p: torch.Tensor,
        s: torch.Tensor,
        t: torch.Tensor,
    ) -> torch.Tensor:
        """KL(q(x_s | x_t, x_0) || p(x_s | x_t)) in nats, (M,): a term of L_vb (Eq. 1).

        At s = 0 it is the reconstruction term -log p~(x_0 | x_t).
        """
        q, p = self.posterior(x_t, x_0, s, t), self.reverse(x_t, log_p, s, t)
        divergence = torch.xlogy(q, q) - torch.where(q > 0, q * p.clamp(min=TINY).log(), 0)
        return torch.where(s == 0, -at(log_p, x_0), divergence.sum(-1))

    def prior_kl(self, x_0: torch.Tensor) -> torch.Tensor:
        """KL(q(x_T | x_0) || p(x_T)) in nats, (M,): L_T of Eq. 1."""
        t = torch.ones(len(x_0), dtype=torch.float64, device=x_0.device)
        q, p = self.row(x_0, torch.zeros_like(t), t), self.prior_probs(x_0.device)
        return (torch.xlogy(q, q) - torch.xlogy(q, p)).sum(-1)

    def step(
        self,
        x_t: torch.Tensor,
        x_0: torch.Tensor,
        s: torch.Tensor,
        t: torch.Tensor,
        u: torch.Tensor,
    ) -> torch.Tensor:
        """x_s drawn from q(x_s | x_t, x_0): int64 (M,), from uniform numbers (M, 2).

        If x_0 is drawn from p~(x_0 | x_t), then x_s is drawn from `reverse`.
        """
        return draw(self.posterior(x_t, x_0, s, t), u[:, 0])


class Interpolating(ForwardProcess):
    """Q_{t|s} = a I + (1 - a) 1 pi^T with a = alpha-bar_t / alpha-bar_s.

    A token stays with probability a and is otherwise drawn anew from pi, which is p(x_T).

    Args:
        schedule: gives alpha-bar.
    """

    def __init__(
        self, schedule: Schedule, types: int, states: int, dtype: torch.dtype = torch.float32
    ):
        super().__init__(types, states, dtype)
        self.schedule = schedule

    def stay_probability(self, s: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """alpha-bar_t / alpha-bar_s, float64 (M,)."""
        return self.schedule.alpha_bar(t) / self.schedule.alpha_bar(s).clamp(min=TINY)

    def prior_kl(self, x_0: torch.Tensor) -> torch.Tensor:
        end = torch.ones(1, dtype=torch.float64, device=x_0.device)
        if self.schedule.alpha_bar(end) == 0:  # q(x_T | x_0) is the prior
            return torch.zeros(len(x_0), dtype=self.dtype, device=x_0.device)
        return super().prior_kl(x_0)

    def row(self, x: torch.Tensor, s: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        a = self.stay_probability(s, t)[:, None]
        redrawn = (1 - a) * self.prior_probs(x.device).double()
        return redrawn.scatter_add(1, x[:, None], a).to(self.dtype)

    def column(self, x: torch.Tensor, s: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        a = self.stay_probability(s, t)
        redrawn = (1 - a) * self.prior_probs(x.device).double()[x]
        whole = redrawn[:, None].expand(-1, self.states)
        return whole.scatter_add(1, x[:, None], a[:, None]).to(self.dtype)

    def act(self, v: torch.Tensor, s: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        a = self.stay_probability(s, t)[:, None].to(v.dtype)
        return a * v + (1 - a) * v.sum(-1, keepdim=True) * self.prior_probs(v.device).to(v.dtype)


class Uniform(Interpolating):
    """Multinomial diffusion: Q-bar_t = alpha-bar_t I + (1 - alpha-bar_t) 11^T / n (App. A.2.1)."""

    def __init__(self, schedule: Schedule, types: int, dtype: torch.dtype = torch.float32):
        super().__init__(schedule, types, types, dtype)

    def prior(self, u: torch.Tensor) -> torch.Tensor:
        return draw_type(u, self.types)

    def prior_probs(self, device: torch.device) -> torch.Tensor:
        return torch.full((self.types,), 1 / self.types, dtype=self.dtype, device=device)

    def corrupt(self, x_0: torch.Tensor, t: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
        stays = u[:, 0] < self.schedule.alpha_bar(t)
        return torch.where(stays, x_0, draw_type(u[:, 1], self.types))

    def step(
        self,
        x_t: torch.Tensor,
        x_0: torch.Tensor,
        s: torch.Tensor,
        t: torch.Tensor,
        u: torch.Tensor,
    ) -> torch.Tensor:
        """See `ForwardProcess.step`: the posterior is a mixture of x_t, x_0 and a uniform type.

        Where x_t and x_0 differ, one of the two has been redrawn.
        """
        a, b, n = self.stay_probability(s, t), self.schedule.alpha_bar(s), self.types
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
    """Masking: Q-bar_t = alpha-bar_t I + (1 - alpha-bar_t) 1 e_m^T (App. A.2.2).

    Tokens become masks, and a mask stays a mask.
    """

    has_mask = True

    def __init__(self, schedule: Schedule, types: int, dtype: torch.dtype = torch.float32):
        super().__init__(schedule, types, types + 1, dtype)
        self.mask = types

    def prior(self, u: torch.Tensor) -> torch.Tensor:
        return torch.full(u.shape, self.mask, device=u.device)

    def prior_probs(self, device: torch.device) -> torch.Tensor:
        probs = torch.zeros(self.states, dtype=self.dtype, device=device)
        probs[self.mask] = 1
        return probs

    def corrupt(self, x_0: torch.Tensor, t: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
        return torch.where(u[:, 0] < self.schedule.alpha_bar(t), x_0, self.mask)

    def kl(
        self,
        x_0: torch.Tensor,
        x_t: torch.Tensor,
        log_p: torch.Tensor,
        s: torch.Tensor,
        t: torch.Tensor,
    ) -> torch.Tensor:
        """See `ForwardProcess.kl`: a mask's cross-entropy times its unmasking probability.

        It is 0 where x_t is x_0 already.
        """
        cost = -self.schedule.unmasking_probability(s, t).to(log_p.dtype) * at(log_p, x_0)
        return torch.where(x_t == self.mask, cost, 0)

    def step(
        self,
        x_t: torch.Tensor,
        x_0: torch.Tensor,
        s: torch.Tensor,
        t: torch.Tensor,
        u: torch.Tensor,
    ) -> torch.Tensor:
        return torch.where((x_t == self.mask) & self.moving(s, t, u), x_0, x_t)

    def moving(self, s: torch.Tensor, t: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
        return u[:, 0] < self.schedule.unmasking_probability(s, t)


def at(table: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """table[m, index[m]], (M,)."""
    return table.gather(1, index[:, None])[:, 0]
