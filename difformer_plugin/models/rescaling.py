"""The rescaling factor F of a model in training: given, chosen, or following the embeddings.

Trained embeddings are not the normal ones that the exact degeneration score is made for, not even
with their own scale: neighbours lie closer. After training, the score at F = 4 with the `sqrt`
schedule was

    Multi30k De-En (7,943 types, d = 128):  table 0.141 +- 0.003, normal with its scale 0.209,
                                            normal with sigma_e = 1 0.159
    demonstration (863 types, d = 64):      table 0.187 +- 0.003, normal with its scale 0.220,
                                            normal with sigma_e = 1 0.123

So what follows the embeddings samples the table itself (`difformer factor --from-checkpoint` and
`--sigma` give both numbers for any checkpoint).
"""

import logging
import math
from functools import cache

import torch
from torch import nn

from difformer_plugin.diffusion.gaussian import GaussianProcess
from difformer_plugin.diffusion.rescaling import NoiseSeries, dgs, meet, search_factor
from difformer_plugin.diffusion.sampled_degeneration import table_scores
from difformer_plugin.models.config import given_factor

logger = logging.getLogger(__name__)

SAMPLES = 64  # draws for each time step; about 4,000 in all, a standard error of 0.003
BERT_DEVIATION = 0.02
KEY = "rescaling._extra_state"


class Rescaling(nn.Module):
    """F, and the process of training with it. Its only state in a checkpoint is F.

    A number on the command line counts for itself. An F that was chosen or that follows is the
    checkpoint's where there is one, so that training goes on with it.

    Args:
        cfg: DifformerConfig; vocab_size: V of the target.
    """

    def __init__(self, cfg, vocab_size):
        super().__init__()
        self.cfg, self.vocab_size = cfg, vocab_size
        self.series = NoiseSeries(cfg.noise_schedule, cfg.diffusion_steps, cfg.vp_rf)
        self.fixed = given_factor(cfg) is not None and cfg.rescaling_update_interval == 0
        self._factor, self._process, self._followed = given_factor(cfg), None, 0

    @property
    def factor(self):
        """F. Where it is left to us it is chosen at the first call, for sigma_e = 1."""
        if self._factor is None:
            self._factor, _ = search_factor(self._expected_score, self.cfg.max_dgs)
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

    def score(self, embeddings, factor=None, seed=0):
        """DGS of an embedding table (V, D) under F or another factor, by sampling."""
        coefficients = self.series.coefficients(factor or self.factor)
        return table_scores(embeddings, *coefficients, SAMPLES, seed=seed).mean().item()

    def announce(self):
        """Choose F if that is left to us, and print it."""
        text = (
            f"rescaling factor {self.factor:g}: degeneration score "
            f"{self._expected_score(self.factor):.3f} for {self.vocab_size} normal embeddings of "
            f"dimension {self.cfg.latent_dim}, sigma_e = 1"
        )
        if self.cfg.apply_bert_init:
            scale = 1 if self.cfg.no_scale_embedding else math.sqrt(self.cfg.latent_dim)
            start = BERT_DEVIATION * scale
            text += (
                f" ({self._expected_score(self.factor, start):.3f} at the start, since "
                f"--apply-bert-init makes sigma_e {start:.2g}; it rises as the embeddings grow)"
            )
        logger.info(text)

    def is_due(self, num_updates):
        """Whether F is to be set anew before this update; once for each, whatever its batches."""
        interval = self.cfg.rescaling_update_interval
        return interval > 0 and num_updates % interval == 0 and num_updates > self._followed

    @torch.no_grad()
    def follow(self, embeddings, num_updates):
        """Set F so that the score of the table (V, D) is --max-dgs, within the bounds on F."""
        self._followed = num_updates
        cfg, before = self.cfg, self.factor

        @cache
        def score(factor):
            return self.score(embeddings, factor, seed=num_updates)

        def bounded(factor):
            return min(max(factor, cfg.min_rescaling_factor), cfg.max_rescaling_factor)

        low = bounded(before / (1 + cfg.rescaling_max_change))
        high = bounded(before * (1 + cfg.rescaling_max_change))
        if score(low) <= cfg.max_dgs:
            factor = low
        elif score(high) > cfg.max_dgs:
            factor = high
        else:
            factor, _ = meet(score, cfg.max_dgs, low, high)
        self._set(factor)
        logger.info(f"rescaling factor {before:.4g} -> {factor:.4g} at {num_updates} updates")

    def _set(self, factor):
        self._factor, self._process = factor, None

    def get_extra_state(self):
        """F for the checkpoint, in a tensor, which averaging checkpoints can add up."""
        return torch.tensor(self.factor, dtype=torch.float64)

    def set_extra_state(self, state):
        """F from the checkpoint."""
        if not self.fixed and float(state) != self._factor:
            self._set(float(state))
            logger.info(f"rescaling factor {self.factor:g}, from the checkpoint")

    def complete(self, state):
        """A model's state dict with this F, if it is an older one that has none."""
        return state if KEY in state else {**state, KEY: self.get_extra_state()}
