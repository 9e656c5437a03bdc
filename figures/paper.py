"""The common look of figures with axes, as papers print them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.ticker import MaxNLocator, PercentFormatter

from figures.text import font_families, wrap
from figures.theme import BLUE, FAINT, GREEN, GREY, INK, ORANGE, PAPER_DPI, PAPER_PT, PURPLE, QUIET, VERMILION


def paper_figure(width: float, height: float, width_ratios: Sequence[float] = (1.0,)) -> tuple[Figure, list[Axes]]:
    """A figure with axes side by side."""
    figure = Figure(figsize=(width, height), dpi=PAPER_DPI, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(width_ratios), squeeze=False, gridspec_kw={"width_ratios": list(width_ratios)})
    return figure, list(axes[0])


def finish_axes(axes: Axes, title: str, x_label: str, y_label: str, grid_axis: Literal["x", "y"] | None = "y") -> None:
    """Give axes their title, labels and the common look."""
    text: dict[str, Any] = {"fontfamily": font_families(), "color": INK, "parse_math": False}
    room = axes.get_window_extent().width / PAPER_DPI
    lines = [line for part in title.split("\n") for line in wrap(part, room, PAPER_PT + 1, "bold")]
    axes.set_title("\n".join(lines), fontsize=PAPER_PT + 1, fontweight="bold", loc="left", **text)
    axes.set_xlabel(x_label, fontsize=PAPER_PT, **text)
    axes.set_ylabel(y_label, fontsize=PAPER_PT, **text)
    for side in ("top", "right") if grid_axis else ("top", "right", "left", "bottom"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(QUIET)
        axes.spines[side].set_linewidth(0.7)
    if grid_axis:
        axes.grid(axis=grid_axis, color=FAINT, linewidth=0.5, alpha=0.7)
        axes.set_axisbelow(True)
    style_ticks(axes)


def style_ticks(axes: Axes) -> None:
    """Small, quiet ticks."""
    axes.tick_params(labelsize=PAPER_PT - 1, colors=QUIET, labelcolor=INK, width=0.6, length=2.5)
    axes.tick_params(labelfontfamily=font_families())


def set_percent_ticks(axis: Axis, highest: float) -> None:
    """Ticks in per cent for shares from 0 to `highest`."""
    axis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10]))
    axis.set_major_formatter(PercentFormatter(1, decimals=0 if highest > 0.06 else 1))


def add_legend(axes: Axes, place: str, columns: int = 1) -> None:
    """A legend without a frame."""
    style: dict[str, Any] = {"loc": place, "ncols": columns, "frameon": False, "labelcolor": INK, "handlelength": 1.8}
    axes.legend(prop=FontProperties(family=font_families(), size=PAPER_PT - 1), **style)


def write_note(axes: Axes, x: float, y: float, text: str, **options: Any) -> None:
    """A small text at a place given in data."""
    style = {"fontsize": PAPER_PT - 1, "fontfamily": font_families(), "color": INK, "parse_math": False, **options}
    axes.text(x, y, text, **style)  # type: ignore[arg-type]


def series_style(index: int) -> tuple[str, str]:
    """Colour and marker of a curve; both differ, so that neither is needed alone."""
    colors = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, GREY)
    return colors[index % len(colors)], "osD^vP*X"[index % 8]
