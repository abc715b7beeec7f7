"""Plots, as files."""

from pathlib import Path

from difformer_plugin.data.files import atomic_path
from difformer_plugin.errors import UserError

FORMATS = (".png", ".svg", ".pdf")


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
            sequence of numbers.
    """
    from matplotlib.figure import Figure

    check_plot_path(path)
    figure = Figure(figsize=(5.2 * len(panels), 3.8), layout="constrained")
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels):
        for label, (x, y) in panel["lines"].items():
            axes.plot(x, y, label=label)
        axes.set(title=panel["title"], xlabel=panel["x_label"], ylabel=panel["y_label"])
        axes.set_ylim(bottom=0)
        axes.margins(x=0)
        axes.grid(alpha=0.3)
        axes.legend()
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=150)
