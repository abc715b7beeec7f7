"""The rescaling factor F in training (Sec. 4.2): given, chosen, or adapted to the embeddings.

The exact degeneration score assumes normal embeddings. Trained embeddings are not normal: even
compared with normal embeddings of the same standard deviation sigma_e, their nearest neighbours are
closer. Scores after training with F = 4 and the `sqrt` schedule:

                                            trained table      normal,        normal,
                                            (sampled)          same sigma_e   sigma_e = 1
    Multi30k De-En (7,943 types, d = 128)   0.142 +- 0.001     0.209          0.159
    demonstration (863 types, d = 64)       0.184 +- 0.001     0.220          0.123

For that reason, F is adapted by sampling the score of the table itself. `difformer factor
--from-checkpoint FILE --rescaling-factor 4` prints all three scores.
"""

import logging
import math
import zlib
from functools import cache
from typing import Any

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

SAMPLES = 64  # draws per time step: about 4,000 in all, for a standard error of 0.003
SAMPLES_OF_TEACHER = 1000  # for the choice of F, which is made once: a standard error of 0.001
# Unlike the seeds of training runs: the score is biased if the noise has the seed that the table
# was drawn with. A teacher of seed 1 scores 0.141 with noise of seed 1 (512 draws), and 0.152 to
# 0.154 with five other seeds.
SEED_OF_TEACHER = 2**31 - 1
# If sigma_e of the initial embeddings differs from 1 by more, their sampled score is logged too.
SIGMA_TOLERANCE = 0.1
KEY = "rescaling._extra_state"  # in a model's state dict
PAPER_MAX_DGS = 0.15  # DGS_MAX of the paper, App. E


class Rescaling(nn.Module):
    """The rescaling factor F, and the forward process of training with it.

    A checkpoint stores F and what it was chosen for: the threshold --max-dgs and the process. When
    a checkpoint is loaded, its F is used if F is adapted to the embeddings, or if it was chosen for
    the same. Otherwise F is the number on the command line, or is chosen anew.

    Args:
        cfg: a DifformerConfig.
        vocab_size: V, the number of target types.

    Attributes:
        series: the noise schedule, from which the coefficients for any F are computed.
        follows: whether F is adapted to the embeddings during training.
    """

    def __init__(self, cfg: Any, vocab_size: int):
        super().__init__()
        self.cfg, self.vocab_size = cfg, vocab_size
        self.series = NoiseSeries(cfg.noise_schedule, cfg.diffusion_steps, cfg.vp_rf)
        self.follows = cfg.rescaling_update_interval > 0
        self._given = self._factor = given_factor(cfg)
        self._process: GaussianProcess | None = None
        self._begun = False  # whether training has begun
        self._last_update = 0  # the number of updates when F was last adapted
        self._origin: str | None = None  # where F is from, if neither the options nor the search

    @property
    def factor(self) -> float:
        """F; with `auto`, it is chosen when it is first read, for embeddings with sigma_e = 1.

        Raises:
            UserError: no F brings the degeneration score down to --max-dgs.
        """
        if self._factor is None:
            with translated():
                factor, _ = search_factor(self._expected_score, self.cfg.max_dgs)
            self._factor = self._bounded(factor) if self.follows else factor
        return self._factor

    @property
    def process(self) -> GaussianProcess:
        """The forward process with all T steps."""
        if self._process is None:
            cfg = self.cfg
            self._process = GaussianProcess.create(
                cfg.noise_schedule, cfg.diffusion_steps, self.factor, cfg.vp_rf
            )
        return self._process

    def _expected_score(self, factor: float, sigma: float = 1.0) -> float:
        """The exact degeneration score of normal embeddings with standard deviation `sigma`."""
        return dgs(self.series, factor, self.vocab_size, self.cfg.latent_dim, sigma)

    def _bounded(self, factor: float) -> float:
        return min(max(factor, self.cfg.min_rescaling_factor), self.cfg.max_rescaling_factor)

    def score(
        self,
        embeddings: torch.Tensor,
        factor: float | None = None,
        seed: int = 0,
        samples: int = SAMPLES,
    ) -> float:
        """The degeneration score of an embedding table, estimated by sampling (Definition 2).

        Args:
            embeddings: (V, D).
            factor: the rescaling factor; the default is F.
            seed: the seed of the sampled noise.
            samples: draws per time step, divided among the positions of a target if the schedule
                depends on them.
        """
        coefficients = self.series.coefficients(factor or self.factor)
        generator = seeded(embeddings.device, seed)
        draws = self.series.draws(samples)
        return table_scores(embeddings, *coefficients, draws, generator).mean().item()

    def choose(self, embeddings: torch.Tensor, trained: bool = False) -> None:
        """Choose F if it is `auto`, before a checkpoint is loaded.

        Args:
            embeddings: the embedding table, (V, D); only that of a teacher is read.
            trained: whether it is a teacher's. F is then chosen by its own score.
        Raises:
            UserError: no F brings the degeneration score down to --max-dgs.
        """
        if trained and self._given is None:
            score = cache(lambda f: self.score(embeddings, f, SEED_OF_TEACHER, SAMPLES_OF_TEACHER))
            with translated():
                factor, _ = search_factor(score, self.cfg.max_dgs)
            self._set(self._bounded(factor) if self.follows else factor)
            self._origin = (
                f"degeneration score {score(self.factor):.3f} of the teacher's {self.vocab_size} "
                f"embeddings, sigma_e = {_sigma(embeddings):.2g}"
            )
        self.factor  # noqa: B018  (searches for it, so that an error comes before the data)
        self._warn_without_rescaling()

    def begin(self, embeddings: torch.Tensor) -> None:
        """Begin training, from the weights of a checkpoint or from new ones: log F.

        Until then F does not follow the embeddings, since fairseq also reports the number of
        updates of a checkpoint, before it loads the weights.

        Args:
            embeddings: the embedding table, (V, D).
        """
        if self._begun:
            return
        self._begun, self._last_update = True, 0
        sigma, text = _sigma(embeddings), self._origin
        if text is None:
            text = (
                f"degeneration score {self._expected_score(self.factor):.3f} for "
                f"{self.vocab_size} normal embeddings of dimension {self.cfg.latent_dim}, "
                "sigma_e = 1"
            )
            if abs(sigma - 1) > SIGMA_TOLERANCE:
                text += (
                    f"; these embeddings start with sigma_e = {sigma:.2g} and a score of "
                    f"{self.score(embeddings):.3f}, which will change as they are trained"
                )
        logger.info(f"rescaling factor {self.factor:g}: {text}")

    def _warn_without_rescaling(self) -> None:
        """Warn if F is 1 and will stay so, although the embeddings degenerate with it."""
        if self._given != 1 or self.follows:
            return
        score = self._expected_score(1.0)
        if score > PAPER_MAX_DGS:
            logger.warning(
                f"noise is not rescaled: the degeneration score is {score:.2f}, and at most "
                f"{PAPER_MAX_DGS:g} in the paper; translations will be far worse. Give "
                f"--rescaling-factor auto --max-dgs {PAPER_MAX_DGS:g}, or an --arch with the "
                "paper's recipe, such as difformer_paper_iwslt_de_en"
            )

    def is_due(self, num_updates: int) -> bool:
        """Whether F is to be adapted before this update.

        It is true once per update, even if fairseq reports an update several times (gradient
        accumulation). Updates count from 0 again if the optimizer is reset.
        """
        due = self.follows and num_updates % self.cfg.rescaling_update_interval == 0
        return self._begun and due and num_updates > self._last_update

    def follow(self, embeddings: torch.Tensor, num_updates: int) -> None:
        """Adapt F so that the sampled score of the embeddings is --max-dgs, and log it.

        F stays within its bounds and changes by at most --rescaling-max-change.

        Args:
            embeddings: the current embedding table, (V, D).
            num_updates: the number of updates so far.
        """
        self._last_update = num_updates
        max_dgs, change, before = self.cfg.max_dgs, self.cfg.rescaling_max_change, self.factor

        @cache
        def score(factor: float) -> float:
            return self.score(embeddings, factor, seed=num_updates)

        low, high = self._bounded(before / (1 + change)), self._bounded(before * (1 + change))
        if score(low) <= max_dgs:
            factor = low
        elif score(high) > max_dgs:
            factor = high
        else:
            factor, _ = solve_for_factor(score, max_dgs, low, high)
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            # Rounding may differ between processes, but all must use the same F.
            shared = torch.tensor(factor, dtype=torch.float64, device=embeddings.device)
            torch.distributed.broadcast(shared, 0)
            factor = shared.item()
        self._set(factor)
        logger.info(f"rescaling factor {before:.4g} -> {factor:.4g} at {num_updates} updates")

    def _set(self, factor: float) -> None:
        self._factor, self._process = factor, None

    def get_extra_state(self) -> torch.Tensor:
        """F, its threshold (0 if there is none) and what else it depends on, float64 (3,).

        It is a tensor so that checkpoints can be averaged.
        """
        values = [self.factor, self.cfg.max_dgs or 0.0, self._process_number()]
        return torch.tensor(values, dtype=torch.float64)

    def _process_number(self) -> int:
        """A number for the options of the process on which F depends, exact in float32."""
        cfg = self.cfg
        options = f"{cfg.noise_schedule} {cfg.diffusion_steps} {cfg.vp_rf}"
        return zlib.crc32(options.encode()) % 1_000_000

    def set_extra_state(self, state: Any) -> None:
        """Take F from a checkpoint, if the options allow it (see the class).

        Raises:
            UserError: the state is not what `get_extra_state` returns.
        """
        if not torch.is_tensor(state) or state.shape not in ((2,), (3,)):
            raise UserError("the checkpoint's rescaling factor is damaged: use another checkpoint")
        # older versions did not store the last number
        factor, max_dgs, process = [*state.tolist(), self._process_number()][:3]
        same_threshold = self._given is None and math.isclose(max_dgs, self.cfg.max_dgs)
        # a moving average of equal numbers may differ in the last digits
        same_process = abs(process - self._process_number()) < 0.5
        if self.follows or (same_threshold and same_process):
            with translated(rescaling_factor="the checkpoint's rescaling factor"):
                check_factor(factor)
            self._set(factor)
            self._origin = "from the checkpoint"

    def complete(self, state: dict[str, Any]) -> dict[str, Any]:
        """Add this F to the state dict of a model, if it is from a version that did not store F."""
        return state if KEY in state else {**state, KEY: self.get_extra_state()}


def _sigma(embeddings: torch.Tensor) -> float:
    """sigma_e of an embedding table."""
    return embeddings.square().mean().sqrt().item()
