"""The common look of figures with axes, as papers print them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.ticker import MaxNLocator, PercentFormatter

from figures.text import font_families, wrap
from figures.theme import BLUE, FAINT, GREEN, GREY, INK, ORANGE, PAPER_PT, PURPLE, QUIET, VERMILION


def paper_figure(width: float, height: float, dpi: int) -> tuple[Figure, Axes]:
    """A figure with one pair of axes."""
    figure = empty_paper(width, height, dpi)
    return figure, figure.subplots()


def empty_paper(width: float, height: float, dpi: int) -> Figure:
    """A figure without axes that finds room for all that is written beside them."""
    figure = Figure(figsize=(width, height), dpi=dpi, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def finish_axes(axes: Axes, title: str, x_label: str, y_label: str, grid_axis: Literal["x", "y"] | None = "y") -> None:
    """Give axes their title, labels and the common look; title and x label break into lines that fit."""
    axes.set_title(
        _broken(axes, title, PAPER_PT + 1, "bold"), fontsize=PAPER_PT + 1, fontweight="bold", loc="left", **_style()
    )
    axes.set_xlabel(_broken(axes, x_label, PAPER_PT, "normal"), fontsize=PAPER_PT, **_style())
    axes.set_ylabel(y_label, fontsize=PAPER_PT, **_style())
    for side in ("top", "right") if grid_axis else ("top", "right", "left", "bottom"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(QUIET)
        axes.spines[side].set_linewidth(0.7)
    if grid_axis:
        axes.grid(axis=grid_axis, color=FAINT, linewidth=0.5, alpha=0.7)
        axes.set_axisbelow(True)
    style_ticks(axes)


def _broken(axes: Axes, text: str, size: float, weight: str) -> str:
    """Text in lines of about the width of the axes; line breaks stay."""
    room = axes.get_window_extent().width / axes.figure.dpi
    return "\n".join(line for part in text.split("\n") for line in wrap(part, room, size, weight))


def _style() -> dict[str, Any]:
    """What all letters have in common; `$` is a character like others."""
    return {"fontfamily": font_families(), "color": INK, "parse_math": False}


def add_footnote(figure: Figure, parts: Sequence[str], room: float) -> None:
    """Write what a reader must know below a figure, in lines of at most `room` inches, where there is any."""
    lines = wrap(" · ".join(part for part in parts if part), room, PAPER_PT - 1, max_lines=6)
    if lines:
        style = {**_style(), "color": QUIET}
        figure.supxlabel("\n".join(lines), x=0.01, ha="left", fontsize=PAPER_PT - 1, **style)


def count_text(count: int | None, one: str) -> str:
    """So many of something, `n = 120 samples`; nothing where the number is not known."""
    if count is None:
        return ""
    return f"n = {count:,} {one}{'' if count == 1 else 's'}".replace(",", " ")


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


def add_figure_legend(figure: Figure, handles: Sequence[Artist], columns: int) -> None:
    """A legend of its own row below the axes, where it cannot lie over anything."""
    style: dict[str, Any] = {"ncols": columns, "frameon": False, "labelcolor": INK, "handlelength": 1.4}
    font = FontProperties(family=font_families(), size=PAPER_PT - 1)
    figure.legend(handles=list(handles), loc="outside lower center", prop=font, **style)


def write_note(axes: Axes, x: float, y: float, text: str, **options: Any) -> None:
    """A small text at a place given in data."""
    style: dict[str, Any] = {"fontsize": PAPER_PT - 1, **_style(), **options}
    axes.text(x, y, text, **style)


def series_style(index: int) -> tuple[str, str]:
    """Colour and marker of a curve; both differ, so that neither is needed alone."""
    colors = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, GREY)
    return colors[index % len(colors)], "osD^vP*X"[index % 8]
