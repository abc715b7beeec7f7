"""The embeddings that `difformer factor` scores: normally distributed ones, or a trained table.

torch and fairseq are imported only by what samples: an exact score needs neither.
"""

from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from difformer_plugin.errors import UserError
from difformer_plugin.tuning.defaults import DIFFUSION_STEPS, LATENT_DIM, SAMPLES, SEED

if TYPE_CHECKING:
    from difformer_plugin.diffusion.gaussian.rescaling import NoiseSeries

MAX_SAMPLED_ENTRIES = 2**31  # of a table that is drawn at random


class NormalEmbeddings:
    """V embeddings drawn from N(0, sigma^2 I), scored exactly.

    Args:
        vocab_size: V.
        latent_dim: their dimension.
        sigma: their standard deviation, sigma_e.
        classifier: "definition1" or "nearest".
    Attributes:
        noise: the noise that is assumed where the user says nothing: `noise_schedule`,
            `diffusion_steps` and `vp_rf`.
    """

    noise: dict[str, Any] = {
        "noise_schedule": "sqrt",
        "diffusion_steps": DIFFUSION_STEPS,
        "vp_rf": False,
    }

    def __init__(
        self,
        vocab_size: int,
        latent_dim: int = LATENT_DIM,
        sigma: float = 1.0,
        classifier: str = "definition1",
    ) -> None:
        self.vocab_size, self.latent_dim, self.sigma = vocab_size, latent_dim, sigma
        self.classifier = classifier

    def noise_series(
        self,
        noise_schedule: str | None = None,
        diffusion_steps: int | None = None,
        vp_rf: bool | None = None,
        stride: int | None = None,
        target_length: int | None = None,
    ) -> "NoiseSeries":
        """The time steps that the score is a mean over; None stands for the default."""
        from difformer_plugin.diffusion.gaussian.rescaling import NoiseSeries

        given = {
            "noise_schedule": noise_schedule,
            "diffusion_steps": diffusion_steps,
            "vp_rf": vp_rf,
        }
        noise = self.noise | {name: value for name, value in given.items() if value is not None}
        return NoiseSeries(
            noise["noise_schedule"],
            noise["diffusion_steps"],
            noise["vp_rf"],
            stride,
            target_length,
        )

    def scores(self, series: "NoiseSeries", factor: float) -> Any:
        """DGS_t at each time step of the series under the factor F, an array (T,).

        A position-dependent schedule has one for each step and position.
        """
        from difformer_plugin.diffusion.gaussian.degeneration import degeneration_scores

        coefficients = series.coefficients(factor)
        return degeneration_scores(
            *coefficients, self.vocab_size, self.latent_dim, self.sigma, self.classifier
        )

    def score(self, series: "NoiseSeries", factor: float) -> float:
        """The degeneration score: the mean of `scores`."""
        return float(self.scores(series, factor).mean())

    def describe(self, series: "NoiseSeries", factor: float) -> dict[str, Any]:
        """The entries of the JSON report about the embeddings and how they were scored."""
        return {
            "vocab_size": self.vocab_size,
            "latent_dim": self.latent_dim,
            "sigma": self.sigma,
            "method": "exact",
        }


class SampledNormalEmbeddings(NormalEmbeddings):
    """Normally distributed embeddings, scored by sampling (Algorithm 2).

    Args:
        normal: the embeddings.
        samples: draws for each time step.
        seed: of the draws; two factors are scored on the same ones.
    Raises:
        UserError: the table is too large to be drawn.
    """

    def __init__(self, normal: NormalEmbeddings, samples: int = SAMPLES, seed: int = SEED) -> None:
        super().__init__(normal.vocab_size, normal.latent_dim, normal.sigma, normal.classifier)
        self.samples, self.seed = samples, seed
        if self.vocab_size * self.latent_dim > MAX_SAMPLED_ENTRIES:
            raise UserError(
                f"--method monte-carlo: a table of {self.vocab_size} x {self.latent_dim} is too "
                "large to be drawn; use --method exact"
            )
        self._cached_sample = cache(self._sample)

    def _sample(self, series, factor):
        """DGS_t, (T,), and the standard error of its mean."""
        from difformer_plugin.diffusion.gaussian.sampled_degeneration import normal_scores

        return normal_scores(
            *series.coefficients(factor),
            *(self.vocab_size, self.latent_dim, self.sigma, self.classifier),
            series.draws(self.samples),
            seed=self.seed,
            progress=progress(factor),
        )

    def scores(self, series: "NoiseSeries", factor: float) -> Any:
        """DGS_t at each time step of the series under the factor F, an array (T,)."""
        return self._cached_sample(series, factor)[0]

    def describe(self, series: "NoiseSeries", factor: float) -> dict[str, Any]:
        """The entries of the JSON report about the embeddings and how they were scored."""
        return {
            **super().describe(series, factor),
            "method": "monte-carlo",
            "samples": self.samples,
            "standard_error": self._cached_sample(series, factor)[1],
        }


class TrainedEmbeddings(NormalEmbeddings):
    """The embedding table of a checkpoint, scored by sampling, on a GPU if there is one.

    The plug-in must be registered with fairseq.

    Args:
        path: a checkpoint of a model that diffuses embeddings.
        classifier: "definition1" or "nearest".
        samples: draws for each time step.
        seed: of the draws.
    Raises:
        UserError: the file is no such checkpoint, or its embeddings are not finite.
    """

    def __init__(
        self,
        path: Path,
        classifier: str = "definition1",
        samples: int = SAMPLES,
        seed: int = SEED,
    ) -> None:
        import torch

        from difformer_plugin.checkpoints.without_data import load_without_data

        model = load_without_data(path)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        with torch.no_grad():
            self.table = model.denoiser.table().float().to(device)
        if not self.table.isfinite().all():
            raise UserError(f"{path}: the embeddings are not all finite; use another checkpoint")
        sigma = float(self.table.square().mean().sqrt())
        vocab_size, latent_dim = self.table.shape
        super().__init__(vocab_size, latent_dim, sigma, classifier)
        self.noise = {name: getattr(model.cfg, name) for name in NormalEmbeddings.noise}
        self.rescaling = model.rescaling
        self.samples, self.seed = samples, seed
        self._cached_scores = cache(self._sample_scores)

    def scores(self, series: "NoiseSeries", factor: float) -> Any:
        """DGS_t at each time step of the series under the factor F, a tensor (T,)."""
        return self._cached_scores(series, factor)

    def _sample_scores(self, series, factor):
        from difformer_plugin.diffusion.gaussian.sampled_degeneration import seeded, table_scores

        generator = seeded(self.table.device, self.seed)
        return table_scores(
            self.table,
            *series.coefficients(factor),
            series.draws(self.samples),
            generator,
            self.classifier,
            progress(factor),
        )

    def describe(self, series: "NoiseSeries", factor: float) -> dict[str, Any]:
        """The entries of the JSON report about the embeddings and how they were scored."""
        from difformer_plugin.diffusion.gaussian.rescaling import dgs
        from difformer_plugin.diffusion.gaussian.sampled_degeneration import (
            error_bound,
            standard_error,
        )

        scores, draws = self.scores(series, factor), series.draws(self.samples)
        shape = self.vocab_size, self.latent_dim
        return {
            **super().describe(series, factor),
            "method": "monte-carlo",
            "samples": self.samples,
            "standard_error": standard_error(scores, draws),
            "error_bound": error_bound(draws * len(scores)),
            "factor_in_training": self.rescaling.factor,
            "dgs_in_training": self.score(self.rescaling.series, self.rescaling.factor),
            "dgs_if_normal": dgs(series, factor, *shape, self.sigma, self.classifier),
            "dgs_if_standard": dgs(series, factor, *shape, 1.0, self.classifier),
        }


def progress(factor: float) -> Callable[[Iterable], Iterable]:
    """A function that wraps an iterable in a progress bar, shown on a terminal only."""
    from tqdm import tqdm

    def wrap(steps):
        return tqdm(steps, f"DGS at F = {factor:.4g}", leave=False, disable=None)

    return wrap
