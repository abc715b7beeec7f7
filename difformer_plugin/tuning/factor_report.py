"""The report of `difformer factor`, as text and as a plot."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from difformer_plugin.diffusion.gaussian.published import DGS_MAX, LATENT_DIM, TABLE_2, TABLE_19
from difformer_plugin.diffusion.gaussian.rescaling import NoiseSeries
from difformer_plugin.evaluation.plots import save_panels
from difformer_plugin.tuning.factor_embeddings import NormalEmbeddings

PLOTTED_FACTORS = (1.0, 2.0, 4.0, 8.0)


def render(result: dict[str, Any], plot_path: Path | None = None) -> str:
    """The entries of `find_factor` or `score_factor` as text.

    Args:
        plot_path: where the plot is written, if there is one.
    """
    error = result.get("standard_error")
    lines = [
        f"rescaling factor    {result['rescaling_factor']:.10g}",
        f"degeneration score  {result['dgs']:.4f}"
        + (f" +- {error:.4f} (standard error)" if error else "")
        + (f", at most {result['max_dgs']:g}" if result["max_dgs"] else "")
        + f"; {result['dgs_unscaled']:.4f} at F = 1",
    ]
    if bound := result.get("error_bound"):
        lines.append(f"error               below {bound:.4f} with 99 % confidence, for a given F")
    lines.append(
        f"of                  {result['vocab_size']} embeddings of dimension "
        f"{result['latent_dim']}, sigma_e = {result['sigma']:.4g}, schedule "
        f"{result['noise_schedule']}{' (variance preserving)' if result['vp_rf'] else ''}, one in "
        f"{result['every_nth_timestep']} of {result['diffusion_steps']} time steps from 0 on, "
        + (f"{length} positions, " if (length := result.get("target_length")) else "")
        + f"classifier {result['classifier']}"
    )
    if "factor_in_training" in result:
        lines.append(
            f"in training         F = {result['factor_in_training']:.4g}, score "
            f"{result['dgs_in_training']:.4f}"
        )
    if "dgs_if_normal" in result:
        lines.append(
            f"were they normal    {result['dgs_if_normal']:.4f} with their sigma_e, "
            f"{result['dgs_if_standard']:.4f} with 1"
        )
    if paper := published_factor(result):
        lines.append(f"the paper           {paper:.1f} (Table 19)")
    if plot_path:
        lines.append(f"plot                {plot_path}")
    return "\n".join(lines)


def published_factor(result: dict[str, Any]) -> float | None:
    """F of the paper's Table 19 for the same question; None if the table does not answer it."""
    row = TABLE_19.get((result["noise_schedule"], result["vocab_size"]))
    setting = [result[name] for name in ("latent_dim", "sigma", "vp_rf", "classifier")]
    if row is None or setting != [LATENT_DIM, 1.0, False, "definition1"]:
        return None
    return dict(zip(DGS_MAX, row)).get(result["max_dgs"])


def plot(path: Path, embeddings: NormalEmbeddings, series: NoiseSeries, factor: float) -> None:
    """Plot DGS_t of the schedules (Fig. 2b) and the rescaled schedule (Fig. 2c) to a file."""
    others = {name: replace(series, schedule=name, target_length=None) for name in TABLE_2}

    def times(own):
        return own.timesteps / own.diffusion_steps

    def by_time(own, f):
        return times(own), own.by_time(embeddings.scores(own, f))

    scores = {name: by_time(own, 1.0) for name, own in (others | {series.schedule: series}).items()}
    scores[f"{series.schedule}, F = {factor:.3g}"] = by_time(series, factor)

    def signal(f):
        alpha_bar, beta_bar = series.coefficients(f)
        return series.by_time(alpha_bar / (alpha_bar + beta_bar))

    factors = sorted({*PLOTTED_FACTORS, factor})
    save_panels(
        path,
        [
            {
                "title": "degeneration score by time",
                "x_label": "t / T",
                "y_label": "DGS_t",
                "lines": scores,
            },
            {
                "title": f"{series.schedule}, rescaled",
                "x_label": "t / T",
                "y_label": "share of the signal in the variance",
                "lines": {f"F = {f:.3g}": (times(series), signal(f)) for f in factors},
            },
        ],
    )
