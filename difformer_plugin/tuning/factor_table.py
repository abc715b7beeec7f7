"""`difformer factor --table`: Table 19 in the paper's layout, and where our values differ."""

from functools import cache
from typing import Any

from difformer_plugin.diffusion.gaussian.published import (
    DGS_MAX,
    LATENT_DIM,
    TABLE_2,
    TABLE_14,
    TABLE_17,
    TABLE_19,
    VOCAB_SIZES,
)
from difformer_plugin.diffusion.gaussian.rescaling import NoiseSeries, dgs, search_factor
from difformer_plugin.tuning.defaults import DIFFUSION_STEPS, SEARCH_STEP

CELL_WIDTH = 13


def factor_table(
    latent_dim: int = LATENT_DIM,
    sigma: float = 1.0,
    diffusion_steps: int = DIFFUSION_STEPS,
    vp_rf: bool = False,
    stride: int | None = None,
    classifier: str = "definition1",
    search_step: float = SEARCH_STEP,
) -> dict[str, Any]:
    """Compute Table 19 and, for the paper's setting, Tables 2, 14 and 17.

    The arguments are those of `NoiseSeries`, `dgs` and `search_factor`.

    Returns:
        `latent_dim`, `sigma` and, as lists of entries, `table_19` and perhaps `table_2`,
        `table_14` and `table_17`; `paper` of an entry is the published value.
    """
    published = latent_dim == LATENT_DIM and sigma == 1.0 and not vp_rf

    @cache
    def score(schedule, factor, vocab_size=VOCAB_SIZES[0], dim=latent_dim, vp_rf=vp_rf):
        series = NoiseSeries(schedule, diffusion_steps, vp_rf, stride)
        return dgs(series, factor, vocab_size, dim, sigma, classifier)

    def search(max_dgs, schedule, *setting):
        factor, found = search_factor(lambda f: score(schedule, f, *setting), max_dgs, search_step)
        return {"rescaling_factor": factor, "dgs": found}

    entries = []
    for (schedule, vocab_size), row in TABLE_19.items():
        for max_dgs, paper in zip(DGS_MAX, row):
            needed = score(schedule, 1.0, vocab_size) > max_dgs
            found = search(max_dgs, schedule, vocab_size) if needed else {"rescaling_factor": None}
            entry = {"noise_schedule": schedule, "vocab_size": vocab_size, "max_dgs": max_dgs}
            entries.append(entry | found | ({"paper": paper} if published else {}))
    result = {"latent_dim": latent_dim, "sigma": sigma, "table_19": entries}
    if published:
        result["table_2"] = [
            {"noise_schedule": name, "dgs": score(name, 1.0), "paper": paper}
            for name, paper in TABLE_2.items()
        ]
        result["table_14"] = [
            {"latent_dim": dim, **search(0.15, "sqrt", VOCAB_SIZES[0], dim), "paper": paper}
            for dim, paper in TABLE_14.items()
        ]
        result["table_17"] = [
            {"max_dgs": x, **search(x, "sqrt", VOCAB_SIZES[0], LATENT_DIM, True), "paper": paper}
            for x, paper in TABLE_17.items()
        ]
    return result


def render(result: dict[str, Any]) -> str:
    """Table 19 as text, with a line for each of the other tables below it."""
    schedules = list(dict.fromkeys(name for name, _ in TABLE_19))
    cells = {
        (e["noise_schedule"], e["vocab_size"], e["max_dgs"]): _cell(e) for e in result["table_19"]
    }
    head = "".join(f"{name.capitalize():<{CELL_WIDTH * len(VOCAB_SIZES)}}" for name in schedules)
    sizes = "".join(f"{size // 1000}K".ljust(CELL_WIDTH) for size in VOCAB_SIZES) * len(schedules)
    lines = [f"{'DGS_MAX':<9}{head}".rstrip(), f"{'':<9}{sizes}".rstrip()]
    for max_dgs in DGS_MAX:
        row = "".join(
            cells[name, size, max_dgs].ljust(CELL_WIDTH)
            for name in schedules
            for size in VOCAB_SIZES
        )
        lines.append(f"{max_dgs:<9.2f}{row}".rstrip())
    lines.append("-: met without rescaling.")
    if "table_2" in result:
        both = [e for e in result["table_19"] if e["paper"] is not None]
        same = sum(e["rescaling_factor"] == e["paper"] for e in both)
        lines += [
            f"In brackets: the paper's Table 19 where it differs ({same} of "
            f"{len(both)} entries are the same).",
            "Table 2, DGS at F = 1: "
            + ", ".join(
                f"{e['noise_schedule']} {e['dgs']:.3f} ({e['paper']:.2f})"
                for e in result["table_2"]
            ),
            "Table 14, sqrt by dimension at 0.15: "
            + ", ".join(f"{e['latent_dim']}: {_cell(e)}" for e in result["table_14"]),
            "Table 17, sqrt, variance preserving: "
            + ", ".join(f"{e['max_dgs']:.2f}: {_cell(e)}" for e in result["table_17"]),
        ]
    return "\n".join(lines)


def _cell(entry):
    """A factor, followed by the paper's in brackets if it differs."""
    factor, paper = entry["rescaling_factor"], entry.get("paper")
    text = "-" if factor is None else f"{factor:.4g}" if factor % 0.5 else f"{factor:.1f}"
    return text if paper in (None, factor) else f"{text} ({paper:.1f})"
