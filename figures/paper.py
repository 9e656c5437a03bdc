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

from figures.layout import DETAIL_SEPARATOR
from figures.text import font_families, line_height, wrap
from figures.theme import BLUE, FAINT, GREEN, GREY, INK, ORANGE, PAPER_PT, PURPLE, QUIET, VERMILION

NOTE_PT = PAPER_PT - 1
SIGNS_HEIGHT = 0.24


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
        _broken(axes, title, PAPER_PT + 1, "bold"), fontsize=PAPER_PT + 1, fontweight="bold", loc="left", **letters()
    )
    axes.set_xlabel(_broken(axes, x_label, PAPER_PT, "normal"), fontsize=PAPER_PT, **letters())
    axes.set_ylabel(y_label, fontsize=PAPER_PT, **letters())
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


def letters() -> dict[str, Any]:
    """What all letters have in common; `$` is a character like others."""
    return {"fontfamily": font_families(), "color": INK, "parse_math": False}


def add_footer(figure: Figure, notes: Sequence[str], signs: Sequence[Artist] = ()) -> None:
    """Make the page longer by a row that explains signs and by notes, where nothing else can lie over them.

    Args:
        figure: A figure of `empty_paper`, whose axes keep their size.
        notes: What a reader must know; empty ones are left out.
        signs: What the row explains.
    """
    width, height = (float(length) for length in figure.get_size_inches())
    lines = wrap(DETAIL_SEPARATOR.join(note for note in notes if note), width - 0.2, NOTE_PT, max_lines=6)
    notes_height = len(lines) * line_height(NOTE_PT) + (0.06 if lines else 0.0)
    footer = notes_height + (SIGNS_HEIGHT if signs else 0.0)
    figure.set_size_inches(width, height + footer)
    total = height + footer
    engine: Any = figure.get_layout_engine()
    engine.set(rect=(0, footer / total, 1, height / total))
    for row, line in enumerate(lines):
        bottom = (notes_height - (row + 0.8) * line_height(NOTE_PT)) / total
        figure.text(0.1 / width, bottom, line, fontsize=NOTE_PT, **{**letters(), "color": QUIET}).set_in_layout(False)
    if signs:
        _add_signs(figure, signs, (notes_height + SIGNS_HEIGHT / 2) / total)


def _add_signs(figure: Figure, signs: Sequence[Artist], middle: float) -> None:
    """A row of signs with their meaning at a height of the figure."""
    style: dict[str, Any] = {"ncols": len(signs), "frameon": False, "labelcolor": INK, "handlelength": 1.4}
    font = FontProperties(family=font_families(), size=NOTE_PT)
    place: dict[str, Any] = {"loc": "center", "bbox_to_anchor": (0.5, middle)}
    figure.legend(handles=list(signs), prop=font, **place, **style).set_in_layout(False)


def count_text(count: int | None, one: str) -> str:
    """So many of something, `n = 120 samples`; nothing where the number is not known."""
    if count is None:
        return ""
    return f"n = {count:,} {one}{'' if count == 1 else 's'}"


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
    style: dict[str, Any] = {"fontsize": PAPER_PT - 1, **letters(), **options}
    axes.text(x, y, text, **style)


def series_style(index: int) -> tuple[str, str]:
    """Colour and marker of a curve; both differ, so that neither is needed alone."""
    colors = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, GREY)
    return colors[index % len(colors)], "osD^vP*X"[index % 8]
