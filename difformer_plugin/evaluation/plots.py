"""Plots with matplotlib: image files, and SVG elements for HTML pages."""

import io
import re
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

from difformer_plugin.errors import UserError
from difformer_plugin.storage.files import atomic_path

FORMATS = (".png", ".svg", ".pdf")
INK = "#010203"  # placeholder colour of text and lines, replaced by the page's text colour
LEGEND_WIDTH = 40  # characters that fit side by side above a plot
# Distinguishable on light and dark backgrounds and with colour-vision deficiencies.
COLOURS = ("#2a78d6", "#d9731a")

Panel = Mapping[str, Any]


def check_plot_path(path: str | PathLike) -> None:
    """Raise a UserError if the suffix names no known format or the path is a folder."""
    if Path(path).suffix.lower() not in FORMATS:
        raise UserError(f"--plot {path}: end the name in {', '.join(FORMATS)}")
    if Path(path).is_dir():
        raise UserError(f"--plot {path} is a folder: name a file")


def save_panels(path: str | PathLike, panels: Sequence[Panel]) -> None:
    """Write panels of line plots, side by side, to an image file.

    Args:
        path: its suffix, one of FORMATS, selects the format.
        panels: dictionaries with `title`, `x_label`, `y_label` and `lines` (label -> (x, y), two
            sequences of numbers). Optional: `dots` (the same as `lines`, drawn as unconnected
            points), `y_limits` ((lowest, highest); default: from 0 to the data's maximum) and
            `x_scale` (such as "log").
    Raises:
        UserError: see `check_plot_path`.
    """
    from matplotlib.figure import Figure

    check_plot_path(path)
    figure = Figure(figsize=(5.2 * len(panels), 3.8), layout="constrained")
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels):
        for label, (x, y) in panel["lines"].items():
            axes.plot(x, y, label=label)
        for label, (x, y) in panel.get("dots", {}).items():
            axes.scatter(x, y, label=label)
        axes.set(title=panel["title"], xlabel=panel["x_label"], ylabel=panel["y_label"])
        axes.set_xscale(panel.get("x_scale", "linear"))
        axes.set_ylim(*panel.get("y_limits", (0, None)))
        axes.margins(x=0.02 if "dots" in panel else 0)
        axes.grid(alpha=0.3)
        axes.legend()
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=150)


def inline_svg(panel: Panel) -> str:
    """A plot as an <svg> element that takes the colours and the width of its place in a page.

    Args:
        panel: a dictionary with `title` (the text alternative), `x_label`, `y_label` and `series`
            (a list of (label, x, y)). Optional: `kind` ("line", the default, "bar" or "dot"),
            `ticks` ((positions, labels) of the x axis), `fit` ((x, y) of a fitted line), `sizes`
            (of the dots) and `zero` (draw a line at y = 0).
    """
    import matplotlib
    from matplotlib.figure import Figure

    style = {
        "svg.fonttype": "none",
        "svg.hashsalt": panel["title"],
        "text.parse_math": False,  # a system's name may contain a $
        "font.family": "sans-serif",
        "font.size": 11,
        **dict.fromkeys(
            ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK
        ),
    }
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(5.2, 3.3), layout="constrained")
        figure.patch.set_alpha(0)
        axes = figure.subplots()
        _draw(axes, panel)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    svg = re.sub(r"<metadata>.*?</metadata>", "", buffer.getvalue(), flags=re.DOTALL)
    opening, rest = svg[svg.index("<svg") :].replace(INK, "currentColor").split(">", 1)
    opening = re.sub(r'\s(width|height)="[^"]*"', "", opening)  # the viewBox keeps the aspect ratio
    return f'{opening} role="img" aria-label={quoteattr(panel["title"])}>{rest}'


def _draw(axes, panel):
    from matplotlib.ticker import MaxNLocator

    kind, count = panel.get("kind", "line"), len(panel["series"])
    axes.patch.set_alpha(0)
    for i, (label, x, y) in enumerate(panel["series"]):
        label = _legend_label(label)
        if kind == "bar":
            width = 0.8 / count
            x = [value + (i - (count - 1) / 2) * width for value in x]
            axes.bar(x, y, width, label=label, color=COLOURS[i])
        elif kind == "dot":
            axes.scatter(x, y, s=panel.get("sizes"), label=label, color=COLOURS[i], alpha=0.7)
        else:
            marker = ("o", "s")[i]
            axes.plot(x, y, label=label, color=COLOURS[i], marker=marker, markersize=4)
    if "fit" in panel:
        axes.plot(*panel["fit"], color=COLOURS[1], label="least squares")
    if panel.get("zero"):
        axes.axhline(0, color=INK, linewidth=0.8)
    if "ticks" in panel:
        axes.set_xticks(*panel["ticks"])
    else:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel=panel["x_label"], ylabel=panel["y_label"])
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.25, color=INK)
    axes.set_axisbelow(True)
    if count > 1 or "fit" in panel:
        side_by_side = sum(len(label) for label, *_ in panel["series"]) < LEGEND_WIDTH
        # above the axes, where it covers no curve
        axes.legend(
            loc="lower left",
            bbox_to_anchor=(0, 1),
            ncols=2 if side_by_side else 1,
            frameon=False,
            borderaxespad=0.2,
        )


def _legend_label(name):
    """A name shortened to fit above a plot; matplotlib hides names that begin with _."""
    half = LEGEND_WIDTH // 2
    short = name if len(name) <= LEGEND_WIDTH else f"{name[: half - 1]}…{name[-half:]}"
    return f"\u200b{short}" if short.startswith("_") else short
