"""The rescaling factor F of a model in training: given, chosen, or following the embeddings.

Trained embeddings are not the normal ones that the exact degeneration score is made for, not even
with their own scale: neighbours lie closer. After training, the score at F = 4 with the `sqrt`
schedule was

    Multi30k De-En (7,943 types, d = 128):  table 0.142 +- 0.001, normal with its scale 0.209,
                                            normal with sigma_e = 1 0.159
    demonstration (863 types, d = 64):      table 0.184 +- 0.001, normal with its scale 0.220,
                                            normal with sigma_e = 1 0.123

So what follows the embeddings samples the table itself (`difformer factor --from-checkpoint FILE
--rescaling-factor 4` prints all of them).
"""

import logging
import math
from functools import cache

import torch
from torch import nn

from difformer_plugin.diffusion.gaussian.process import GaussianProcess
from difformer_plugin.diffusion.gaussian.rescaling import (
    NoiseSeries,
    check_factor,
    dgs,
    search_factor,
    solve_for_factor,
)
from difformer_plugin.diffusion.gaussian.sampled_degeneration import seeded, table_scores
from difformer_plugin.errors import UserError, translated
from difformer_plugin.families.embeddings.config import given_factor

logger = logging.getLogger(__name__)

SAMPLES = 64  # draws for each time step; about 4,000 in all, a standard error of 0.003
UNUSUAL_SIGMA = 0.1  # from this difference to 1 on, the first score is printed as well
KEY = "rescaling._extra_state"


class Rescaling(nn.Module):
    """F, and the process of training with it.

    A checkpoint holds F and the threshold that it was chosen for. A number on the command line
    counts for itself. An F that follows the embeddings goes on from the checkpoint's, and so does
    one that was chosen for the same threshold; for another one F is chosen anew.

    Args:
        cfg: DifformerConfig; vocab_size: V of the target.
    """

    def __init__(self, cfg, vocab_size):
        super().__init__()
        self.cfg, self.vocab_size = cfg, vocab_size
        self.series = NoiseSeries(cfg.noise_schedule, cfg.diffusion_steps, cfg.vp_rf)
        self.follows = cfg.rescaling_update_interval > 0
        self._given = self._factor = given_factor(cfg)
        self._process, self._followed, self._announced = None, 0, None

    @property
    def factor(self):
        """F. Where it is left to us it is chosen at the first call, for sigma_e = 1."""
        if self._factor is None:
            with translated():
                factor, _ = search_factor(self._expected_score, self.cfg.max_dgs)
            self._factor = self._bounded(factor) if self.follows else factor
        return self._factor

    @property
    def process(self):
        """The GaussianProcess of all T steps under F."""
        if self._process is None:
            cfg = self.cfg
            self._process = GaussianProcess.create(
                cfg.noise_schedule, cfg.diffusion_steps, self.factor, cfg.vp_rf
            )
        return self._process

    def _expected_score(self, factor, sigma=1.0):
        return dgs(self.series, factor, self.vocab_size, self.cfg.latent_dim, sigma)

    def _bounded(self, factor):
        return min(max(factor, self.cfg.min_rescaling_factor), self.cfg.max_rescaling_factor)

    def score(self, embeddings, factor=None, seed=0):
        """DGS of an embedding table (V, D) under F or another factor, by sampling."""
        coefficients = self.series.coefficients(factor or self.factor)
        generator = seeded(embeddings.device, seed)
        return table_scores(embeddings, *coefficients, SAMPLES, generator).mean().item()

    def begin(self, embeddings):
        """Training begins with this table (V, D): choose F if that is left to us, and print it."""
        self._announced = self.factor
        text = (
            f"rescaling factor {self.factor:g}: degeneration score "
            f"{self._expected_score(self.factor):.3f} for {self.vocab_size} normal embeddings of "
            f"dimension {self.cfg.latent_dim}, sigma_e = 1"
        )
        sigma = embeddings.square().mean().sqrt().item()
        if abs(sigma - 1) > UNUSUAL_SIGMA:
            text += (
                f"; these embeddings start with sigma_e = {sigma:.2g}, where it is "
                f"{self.score(embeddings):.3f}, and it will change with them"
            )
        logger.info(text)

    def is_due(self, num_updates):
        """Whether F is to be set anew before this update; once for each, whatever its batches.

        Never before `begin`: a model that is loaded to translate is told its updates as well.
        """
        if self._announced is None:
            return False
        if self._announced != self.factor:
            logger.info(f"rescaling factor {self.factor:g}, from the checkpoint")
            self._announced = self.factor
        due = self.follows and num_updates % self.cfg.rescaling_update_interval == 0
        return due and num_updates > self._followed

    def follow(self, embeddings, num_updates):
        """Set F so that the score of the table (V, D) is --max-dgs, within the bounds on F."""
        self._followed = num_updates
        max_dgs, change, before = self.cfg.max_dgs, self.cfg.rescaling_max_change, self.factor

        @cache
        def score(factor):
            return self.score(embeddings, factor, seed=num_updates)

        low, high = self._bounded(before / (1 + change)), self._bounded(before * (1 + change))
        if score(low) <= max_dgs:
            factor = low
        elif score(high) > max_dgs:
            factor = high
        else:
            factor, _ = solve_for_factor(score, max_dgs, low, high)
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            # processes may compute in different ways, but they train one model
            shared = torch.tensor(factor, dtype=torch.float64, device=embeddings.device)
            torch.distributed.broadcast(shared, 0)
            factor = shared.item()
        self._set(factor)
        self._announced = factor
        logger.info(f"rescaling factor {before:.4g} -> {factor:.4g} at {num_updates} updates")

    def _set(self, factor):
        self._factor, self._process = factor, None

    def get_extra_state(self):
        """F and its threshold (or 0) for the checkpoint; a tensor can be averaged with others."""
        return torch.tensor([self.factor, self.cfg.max_dgs or 0.0], dtype=torch.float64)

    def set_extra_state(self, state):
        """F from the checkpoint, if it counts."""
        if not torch.is_tensor(state) or state.shape != (2,):
            raise UserError("the checkpoint's rescaling factor is damaged: use another checkpoint")
        factor, max_dgs = state.tolist()
        chosen_for_this = self._given is None and math.isclose(max_dgs, self.cfg.max_dgs)
        if self.follows or chosen_for_this:
            with translated(rescaling_factor="the checkpoint's rescaling factor"):
                check_factor(factor)
            self._set(factor)

    def complete(self, state):
        """A model's state dict with this F, if it is an older one that has none."""
        return state if KEY in state else {**state, KEY: self.get_extra_state()}
