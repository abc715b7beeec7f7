"""The search for the rescaling factor F, as `difformer factor` reports it (Algorithm 1, App. D)."""

from functools import cache
from typing import Any

from difformer_plugin.diffusion.gaussian.rescaling import NoiseSeries, search_factor
from difformer_plugin.tuning.defaults import MAX_DGS, SEARCH_STEP
from difformer_plugin.tuning.factor_embeddings import NormalEmbeddings


def find_factor(
    embeddings: NormalEmbeddings,
    series: NoiseSeries,
    max_dgs: float = MAX_DGS,
    search_step: float = SEARCH_STEP,
) -> dict[str, Any]:
    """The least factor F whose degeneration score is at most `max_dgs`.

    Args:
        embeddings: what is scored.
        series: the time steps that the score is a mean over.
        search_step: factors 1, 1 + step, 1 + 2 step, ... are considered; 0: any number.
    Returns:
        the entries of the JSON report.
    Raises:
        ParameterError: no factor reaches the threshold.
    """

    @cache
    def score(factor):
        return embeddings.score(series, factor)

    factor, found = search_factor(score, max_dgs, search_step)
    return _report(embeddings, series, factor, found, score(1.0), max_dgs)


def score_factor(
    embeddings: NormalEmbeddings, series: NoiseSeries, factor: float
) -> dict[str, Any]:
    """The degeneration score of a given factor: with the entries of `find_factor`."""
    found = embeddings.score(series, factor)
    return _report(embeddings, series, factor, found, embeddings.score(series, 1.0), None)


def _report(embeddings, series, factor, found, unscaled, max_dgs):
    return {
        "rescaling_factor": factor,
        "dgs": found,
        "dgs_unscaled": unscaled,
        "max_dgs": max_dgs,
        "noise_schedule": series.schedule,
        "vp_rf": series.vp_rf,
        "diffusion_steps": series.diffusion_steps,
        "every_nth_timestep": int(series.timesteps[1]) if len(series.timesteps) > 1 else 1,
        **({"target_length": series.positions} if series.positional else {}),
        "classifier": embeddings.classifier,
        **embeddings.describe(series, factor),
    }
