"""Plots, as files and inside pages."""

import io
import re
from pathlib import Path
from xml.sax.saxutils import quoteattr

from difformer_plugin.errors import UserError
from difformer_plugin.storage.files import atomic_path

FORMATS = (".png", ".svg", ".pdf")
INK = "#010203"  # text and lines of a plot inside a page; replaced by the colour of its text
LEGEND = 40  # letters that fit side by side above a plot
COLOURS = ("#2a78d6", "#d9731a")  # told apart on white and on black, in any eye


def check_plot_path(path):
    """The name must tell the format, and must not be a folder's."""
    if Path(path).suffix.lower() not in FORMATS:
        raise UserError(f"--plot {path}: end the name in {', '.join(FORMATS)}")
    if Path(path).is_dir():
        raise UserError(f"--plot {path} is a folder: name a file")


def save_panels(path, panels):
    """Write panels of lines, side by side, to an image file.

    Args:
        path: its ending names the format.
        panels: dicts with `title`, `x_label`, `y_label` and `lines`: label -> (x, y), each a
            sequence of numbers. Optional: `dots`: the same, of points that no line joins;
            `y_limits`: (lowest, highest), instead of 0 and what there is; `x_scale`: "log".
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


def inline_svg(panel):
    """A plot as an <svg> element for a page, in the page's own colours and as wide as its place.

    Args:
        panel: a dict with `title` (for those who cannot see it), `x_label`, `y_label`, and
            `series`: a list of (label, x, y). Optional: `kind`, one of "line" (default), "bar" and
            "dot"; `ticks`: (positions, labels) of x; `fit`: (x, y) of a line through dots;
            `sizes`: of the dots; `zero`: mark y = 0.
    """
    import matplotlib
    from matplotlib.figure import Figure

    style = {
        "svg.fonttype": "none",
        "svg.hashsalt": panel["title"],
        "text.parse_math": False,  # a system's name may hold a $
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
    opening = re.sub(r'\s(width|height)="[^"]*"', "", opening)  # viewBox keeps their ratio
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
        beside = sum(len(label) for label, *_ in panel["series"]) < LEGEND
        # above the axes, where no curve is
        axes.legend(
            loc="lower left",
            bbox_to_anchor=(0, 1),
            ncols=2 if beside else 1,
            frameon=False,
            borderaxespad=0.2,
        )


def _legend_label(name):
    """A name that fits above a plot; matplotlib would hide one that begins with an underscore."""
    short = name if len(name) <= LEGEND else f"{name[: LEGEND // 2 - 1]}…{name[-LEGEND // 2 :]}"
    return f"\u200b{short}" if short.startswith("_") else short
